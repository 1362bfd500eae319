"""How results look on a terminal: plain text and tables on stdout, nothing decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitl.adapters import BACKENDS
from multitl.contracts import RGB, VALUE
from multitl.runs.cards import read_card
from multitl.system.printing import printable, results, show, table

if TYPE_CHECKING:
    from multitl.contracts import BackboneInfo, Result
    from multitl.doctor.diagnosis import Diagnosis
    from multitl.porting.exporting import Ported
    from multitl.porting.formats import Format
    from multitl.porting.translate import Translated
    from multitl.system.cache import Kept
    from multitl.training.choosing import Choice
    from multitl.training.several_heads import HeadsResult

FIGURES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "ece": "calibration error",
    "map": "mean average precision",
    "f1_micro": "micro F1",
    "subset_accuracy": "all labels right",
    "hamming_loss": "Hamming loss",
    "roc_auc": "ROC AUC",
    "kappa": "Cohen's kappa",
    "kappa_quadratic": "kappa, quadratic weights",
    "log_loss": "log loss",
    "cost": "mean cost",
    "cost_likeliest": "mean cost of the likeliest class",
    "cost_constant": "mean cost of always one class",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "median_ae": "median absolute error",
    "r2": "R2",
    "bias": "said minus true",
}
OF_NUMBERS = ("mae", "rmse", "median_ae", "r2", "bias")
SUMMARY, LABEL_SUMMARY = ("accuracy", "f1_macro"), ("map", "f1_macro", "subset_accuracy")
PER_CLASS = {
    "precision": "precision", "recall": "recall", "specificity": "specificity", "f1": "F1", "roc_auc": "ROC AUC",
    "average_precision": "AP",
}  # fmt: skip
PER_LABEL = {
    "average_precision": "AP", "roc_auc": "ROC AUC", "f1": "F1", "precision": "precision", "recall": "recall",
    "threshold": "threshold",
}  # fmt: skip
STYLES = {"ok": "green", "note": "yellow", "trap": "bold red"}


def print_result(result: Result, next_steps: Mapping[str, str]) -> None:
    """The closing summary of a run: both splits' figures, the files, what to try next (purpose -> command)."""
    from multitl.judging.proportions import baselines

    part, judged = next((part, result.metrics[part]) for part in ("test", "validation") if result.metrics.get(part))
    names: tuple[str, ...] = LABEL_SUMMARY if "per_label" in judged else OF_NUMBERS[:4] if "mae" in judged else SUMMARY
    names += ("cost",) if "cost" in judged else ()
    screen, grid = results(), table("split", "images", *(FIGURES[name] for name in names), right=["images"])
    for split in ("test", "validation"):
        if metrics := result.metrics.get(split):
            grid.add_row(split, str(metrics["count"]), *(with_interval(metrics, name) for name in names))
    if "per_class" in judged:
        known = baselines(judged)
        figures = _figures(known.majority_accuracy, known.majority_f1_macro)
        grid.add_row(f"always {printable(known.majority)}", "", *figures)
        grid.add_row("guessing", "", *_figures(known.chance))
    if "mae" in judged:
        known_mean = judged["always_mean"]
        grid.add_row(_always(known_mean), "", f"{known_mean['mae']:.4g}", f"{known_mean['rmse']:.4g}", "", "")
    show(grid)
    _print_cautions(judged, part)
    screen.print(f"report  {printable(result.report_path)}", soft_wrap=True)
    screen.print(f"model   {printable(result.model_path)}", soft_wrap=True)
    screen.print("\nWhat to try next")
    for purpose, command in next_steps.items():
        screen.print(f"  {purpose}:\n    {printable(command)}", soft_wrap=True)


def print_memory(folder: Path) -> None:
    """Of a run that went on from another one: what it still knows of what that one was judged on."""
    card = read_card(folder)
    start = card.start
    if start and start.old_test:
        of = f"{start.old_test.split} images of {printable(start.run)}"
        results().print(f"{of}: {card.measure} {start.old_test}", soft_wrap=True)


def print_choice(choice: Choice, command: str) -> None:
    """Backbones, the best first, then those that were given up or cannot be used, and what needs none; the page; how to
    go on."""
    score, second = FIGURES[choice.figure], FIGURES["mae" if choice.figure == "r2" else "log_loss"]
    right = [score, second, "images/s", "parameters"]
    grid = table("backbone", *right, "licence", right=right, prose=["licence"])
    for one in choice.standings:
        merit = f"{one.score:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"
        other = f"{one.losses.mean():.3f}" if one.mae is None else f"{one.mae:.4g}"
        name = printable(one.name) + (f" (first {one.images} images)" if one.stopped else "")
        speed = "stored" if one.speed is None else f"{one.speed:.0f}"
        grid.add_row(name, merit, other, speed, f"{one.parameters / 1e6:.1f} M", one.licence)
    for known in choice.baselines:
        grid.add_row(printable(known.says), f"{known.score:.3f}", "" if known.mae is None else f"{known.mae:.4g}")
    for unusable in choice.unusable:
        grid.add_row(printable(unusable.name), "cannot be used", style="red")
    screen = results()
    show(grid)
    screen.print(f"page  {printable(choice.page)}\n\nWhat to try next", soft_wrap=True)
    screen.print(f"  fine-tune the best one:\n    {printable(command)}", soft_wrap=True)


def print_repeats(summary: Mapping[str, Any], path: Path) -> None:
    """A line a seed, then the mean and how far the runs lie from it (their standard deviation)."""
    titles = {name: FIGURES[name] for name in summary["mean"]}
    screen, grid = results(), table("seed", "of", *titles.values(), right=["seed"])
    for row in summary["runs"]:
        grid.add_row(str(row["seed"]), f"{row['count']} {row['split']}", *(_show(name, row[name]) for name in titles))
    means, spreads = summary["mean"], summary["standard_deviation"]
    grid.add_section()
    cells = (f"{_show(name, means[name])} ± {_show(name, spreads[name])}" for name in titles)
    grid.add_row("mean", f"{len(summary['runs'])} runs", *cells)
    show(grid)
    screen.print(f"summary {printable(path)}", soft_wrap=True)


def print_heads(result: HeadsResult) -> None:
    """A line for each head: its figures, and where its report lies."""
    from multitl.contracts import describe_figures

    titles = ["figures", *(["on the backbone as it was"] if result.alone else [])]
    screen, grid = results(), table("head", *titles, "run", prose=titles)
    for name, one in result.results.items():
        alone = [describe_figures(result.alone[name])] if result.alone else []
        grid.add_row(printable(name), describe_figures(one.metrics), *alone, printable(one.output))
    show(grid)
    screen.print(f"report  {printable(result.report_path)}", soft_wrap=True)
    screen.print(f"model   {printable(result.model_path)}", soft_wrap=True)


def print_answers(predictions: Sequence[Mapping[str, Any]]) -> None:
    """One line an image: what each head says of it."""
    from multitl.cli.answers import answer_text

    heads = dict.fromkeys(name for row in predictions for name in row if name not in ("path", "error"))
    grid = table("image", *map(printable, heads), prose=list(map(printable, heads)))
    for row in predictions:
        cells = (
            [f"unreadable: {row['error']}"] if "error" in row else [printable(answer_text(row[one])) for one in heads]
        )
        grid.add_row(printable(row["path"]), *cells, style="red" if "error" in row else None)
    show(grid)


def print_metrics(metrics: Mapping[str, Any], head: str = "") -> None:
    """One judgement: overall figures with 95 % intervals, then every class or label, if there are any."""
    screen = results()
    about = f"{printable(head)}: " if head else ""
    screen.print(f"{about}{_images(metrics['count'])}; in brackets the 95 % bootstrap interval")
    overall = table("overall", "", "")
    for name, title in FIGURES.items():
        if name in metrics:
            overall.add_row(title, *with_interval(metrics, name).split(" ", 1))
    if "per_label" in metrics:
        show(overall)
        _print_cautions(metrics, "")
        _print_labels(metrics["per_label"])
        return
    if "mae" in metrics:
        known_mean = metrics["always_mean"]
        overall.add_row(f"mean absolute error of {_always(known_mean)}", f"{known_mean['mae']:.4g}", "")
        show(overall)
        _print_cautions(metrics, "")
        return
    from multitl.judging.proportions import baselines

    known = baselines(metrics)
    overall.add_row(f"accuracy of always {printable(known.majority)}", *_figures(known.majority_accuracy), "")
    overall.add_row("accuracy of guessing", *_figures(known.chance), "")
    show(overall)
    _print_cautions(metrics, "")
    columns = [*PER_CLASS.values(), "images"]
    classes = table("class", *columns, right=columns)
    for row in metrics["per_class"]:
        figures = ("" if row[name] is None else f"{row[name]:.3f}" for name in PER_CLASS)
        classes.add_row(printable(row["class"]), *figures, str(row["support"]))
    show(classes)


def _always(baseline: Mapping[str, float]) -> str:
    return f"always {baseline['value']:.4g}"


def print_numbers(predictions: Sequence[Mapping[str, Any]]) -> None:
    """One line an image: its number."""
    has_errors = any("error" in row for row in predictions)
    grid = table("image", "value", right=[] if has_errors else ["value"], prose=["value"] if has_errors else [])
    for row in predictions:
        if "error" in row:
            grid.add_row(printable(row["path"]), f"unreadable: {row['error']}", style="red")
        else:
            grid.add_row(printable(row["path"]), f"{row['value']:.6g}")
    show(grid)


def _print_labels(rows: Sequence[Mapping[str, Any]]) -> None:
    columns = [*PER_LABEL.values(), "images"]
    labels = table("label", *columns, right=columns)
    for row in rows:
        figures = ("" if row[name] is None else f"{row[name]:.3f}" for name in PER_LABEL)
        labels.add_row(printable(row["label"]), *figures, str(row["support"]))
    show(labels)


def print_labelled(predictions: Sequence[Mapping[str, Any]], top: int) -> None:
    """One line an image, which may have several labels: those that it was given, each with its probability.

    top: how many of the likeliest labels are listed beside, given or not.
    """
    grid = table("image", "labels", *(["likeliest"] if top else []), prose=["labels", "likeliest"])
    for row in predictions:
        if "error" in row:
            grid.add_row(printable(row["path"]), f"unreadable: {row['error']}", style="red")
            continue
        known = row["probabilities"]
        shown = [row["predicted"], *([sorted(known, key=lambda name: -known[name])[:top]] if top else [])]
        cells = (", ".join(f"{printable(one)} {known[one]:.3f}" for one in names) or "none" for names in shown)
        grid.add_row(printable(row["path"]), *cells)
    show(grid)


def print_predictions(predictions: Sequence[Mapping[str, Any]]) -> None:
    """One line an image: the class, its probability, and the other probabilities that are there."""
    has_others = any(len(row.get("probabilities", ())) > 1 for row in predictions)
    prose = ["then", *(["predicted"] if any("error" in row for row in predictions) else [])]
    has_unknown = any(row.get("unknown") for row in predictions)
    columns = ["image", "predicted", "confidence", *(["familiarity"] if has_unknown else [])]
    columns += ["then"] if has_others else []
    grid = table(*columns, right=["confidence", *(["familiarity"] if has_unknown else [])], prose=prose)
    for row in predictions:
        if "error" in row:
            grid.add_row(printable(row["path"]), f"unreadable: {row['error']}", style="red")
            continue
        others = ", ".join(
            f"{printable(name)} {value:.3f}" for name, value in row["probabilities"].items() if name != row["predicted"]
        )
        cells = [printable(row["path"]), printable(row["predicted"]), f"{row['confidence']:.3f}"]
        cells += [_familiarity_text(row)] if has_unknown else []
        grid.add_row(*cells, *([others] if has_others else []))
    show(grid)
    if has_unknown:
        results().print("unknown: as strange to the model as fewer than 5 in 100 images of the usual kind are")


def _familiarity_text(row: Mapping[str, Any]) -> str:
    """The share of usual images that are as strange, and whether that is too few."""
    return f"{'unknown ' * row['unknown']}{row['familiarity']:.3f}" if "familiarity" in row else ""


def print_backbones(infos: Iterable[BackboneInfo], most: int) -> None:
    """Name, native input size, licence, where the weights come from, variants. A source with more than `most` of them
    is only counted.
    """
    sources: dict[str, list[BackboneInfo]] = {}
    for info in infos:
        sources.setdefault(info.name.partition("/")[0], []).append(info)
    grid = table(
        "backbone", "input", "licence", "weights", "variants", right=["input"], prose=["licence", "weights", "variants"]
    )
    for info in (info for listed in sources.values() if len(listed) <= most for info in listed):
        size = f"{info.image_size} px" if info.image_size else "its own"
        grid.add_row(info.name, size, info.licence, info.weights, ", ".join(info.variants))
    show(grid)
    for source, listed in sources.items():
        if len(listed) > most:
            results().print(f"{source}   {len(listed):,} more: multitl backbones {source}/", highlight=False)


def print_network(made: Translated, next_steps: Mapping[str, str]) -> None:
    """A network that was translated: what it is, how exact, where it lies."""
    screen, backbone = results(), made.card["backbone"]
    preprocess, classes = backbone["preprocess"], len(made.card["data"]["class_names"])
    screen.print(f"{backbone['name']}   {backbone['parameters']:,} parameters", soft_wrap=True)
    count = len(preprocess["scale"])
    channels = "RGB" if count == RGB else f"{count} channel{'s' * (count > 1)}"
    screen.print(f"takes   {preprocess['height']} x {preprocess['width']} pixels, {channels}, 0 to 255")
    screen.print(f"gives   {classes} probabilities" if classes else "gives   its feature map")
    if parity := backbone["parity"]:
        screen.print(
            f"exact   to {parity['max_rel']:.1e} of the original's largest output, on {_images(parity['inputs'])}"
        )
    screen.print(f"licence {backbone['licence']}")
    screen.print(f"model   {printable(made.output / 'model.keras')}", soft_wrap=True)
    for purpose, command in next_steps.items():
        screen.print(f"\nWhat to try next\n  {purpose}:\n    {printable(command)}", soft_wrap=True)


def print_ports(ported: Sequence[Ported]) -> None:
    """What was written: how much, how fast, how exact. The first line is the model that it came from."""
    screen, first = results(), ported[0].card
    has_labels = first["proof"]["accuracy_before"] is not None
    is_number = VALUE in first["gives"]
    right = "F1" if first["thresholds"] else "R2" if is_number else "accuracy"
    same = "same labels" if first["thresholds"] else "near" if is_number else "same class"
    figures = ["size", "one image", "largest error", same, *([right] if has_labels else [])]
    grid = table("format", *figures, "opened by", right=figures, prose=["opened by"])
    source = first["source"]
    accuracy = [f"{first['proof']['accuracy_before']:.3f}"] if has_labels else []
    grid.add_row("model.keras", _megabytes(source["bytes"]), f"{source['milliseconds']:.1f} ms", "", "", *accuracy,
                 f"Keras on {first['backend']['name']}")  # fmt: skip
    for one in ported:
        proof = one.card["proof"]
        accuracy = [f"{proof['accuracy_after']:.3f}"] if has_labels else []
        grid.add_row(
            one.card["port"]["format"], _megabytes(one.card["bytes"]), f"{one.card['latency']['milliseconds']:.1f} ms",
            f"{proof['max_abs']:.1e}", f"{proof['top1']:.1%}", *accuracy, one.card["opened_by"],
        )  # fmt: skip
    screen.print(f"compared on {_images(first['proof']['inputs'])}: {printable(first['proof']['on'])}", soft_wrap=True)
    show(grid)
    for one in ported:
        screen.print(f"{one.card['port']['format']:<15} {printable(one.output)}", soft_wrap=True)
        if maps := one.card["proof"].get("contributions"):
            screen.print(f"contributions   sum to logit - bias, within {maps['sum_error']:.1e} of the largest")


def print_formats(formats: Mapping[str, tuple[Format, Sequence[str]]]) -> None:
    """Which format is for what, how a model of each backend gets there, and the pip line for what is missing."""
    screen = results()
    grid = table("format", "what it is", *BACKENDS, "here", prose=["what it is"])
    reasons: dict[str, list[str]] = {}
    for name, (one, missing) in formats.items():
        ways = ["yes" if one.backend in ("", backend) else f"by {one.backend}" for backend in BACKENDS]
        here = f"pip install 'multitl[{one.extra}]'" if missing else "yes"
        grid.add_row(name, one.summary, *ways, here, style=None if not missing else "yellow")
        if one.why:
            reasons.setdefault(one.why, []).append(name)
    show(grid)
    screen.print(
        "A model of any backend goes anywhere: multitl saves it and writes the artefact under another one where"
    )
    screen.print("this says so. torch takes networks of torchvision and timm. Why not directly:")
    for why, names in reasons.items():
        screen.print(f"  {', '.join(names)}: {why}", soft_wrap=True)


def _megabytes(count: int) -> str:
    return f"{count / 10**6:.1f} MB"


def print_cache(kept: Sequence[Kept], folder: Path, limit: float, *, is_removed: bool) -> None:
    """What lies in the cache, or did, kind by kind."""
    screen, grid = results(), table("kind", "files", "MB", "last used", "what", right=["files", "MB"], prose=["what"])
    for one in kept:
        used = datetime.fromtimestamp(one.used).strftime("%Y-%m-%d %H:%M") if one.files else "-"
        grid.add_row(one.kind, f"{one.files:,}", f"{one.size / 1e6:,.1f}", used, one.summary)
    show(grid)
    total = sum(one.size for one in kept)
    says = "removed from" if is_removed else f"of at most {limit / 1e9:g} GB (MULTITL_CACHE_LIMIT) in"
    screen.print(f"{total / 1e9:.2f} GB {says} {printable(folder)}", soft_wrap=True)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """The machine, its backends, the active choice, and each known trap."""
    screen = results()
    screen.print("   ".join(f"{name} {version}" for name, version in diagnosis.machine.items()))
    columns = ["works", "version", "devices", "16-bit"]
    backends = table("backend", *columns, "start-up", prose=columns)
    for probe in diagnosis.probes:
        start_up = f"{probe.seconds:.1f} s" if probe.works else ""
        versions = ", ".join(f"{name} {version}" for name, version in probe.versions.items())
        outcome = "yes" if probe.works else f"no: {probe.error}"
        backends.add_row(probe.backend, outcome, versions, ", ".join(probe.devices), probe.mixed_precision, start_up)
    show(backends)
    screen.print(f"multitl would use: {diagnosis.choice}")
    traps = table("check", "", "finding", prose=["finding"])
    for finding in diagnosis.findings:
        text = "\n".join([finding.text, *([f"to mend: {finding.fix}"] if finding.fix else [])])
        traps.add_row(finding.check, finding.status, text, style=STYLES[finding.status])
    show(traps)


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _print_cautions(metrics: Mapping[str, Any], part: str) -> None:
    from multitl.judging.label_findings import label_cautions
    from multitl.judging.number_findings import number_cautions
    from multitl.judging.proportions import cautions

    known = label_cautions if "per_label" in metrics else number_cautions if "mae" in metrics else cautions
    for caution in known(metrics, part):
        results().print(f"note: {caution}")


def _figures(*values: float) -> list[str]:
    return [f"{value:.3f}" for value in values]


def with_interval(metrics: Mapping[str, Any], name: str) -> str:
    interval = metrics.get(f"{name}_ci")
    if metrics[name] is None:
        return "- "
    low_high = f" [{_show(name, interval[0])}, {_show(name, interval[1])}]" if interval else " "
    return _show(name, metrics[name]) + low_high


def _show(name: str, value: float) -> str:
    """Shares to a tenth of a per cent; numbers in the user's units to four digits."""
    return f"{value:.4g}" if name in OF_NUMBERS else f"{value:.3f}"
