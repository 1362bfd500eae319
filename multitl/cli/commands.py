"""What each command does: from its options to a function of `multitl`, and from what that gives to what is printed."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import multitl
from multitl.adapters import SOURCES, backbones, check_backend, folder_name, load_backend
from multitl.bench import flags as bench_flags
from multitl.cli import finished_runs, flags, launching
from multitl.cli.repeats import SUMMARY, plan, repeat
from multitl.contracts import VALUE
from multitl.distribution.group import group_from_environment
from multitl.errors import BackboneError, RunError, nearest_names
from multitl.porting.formats import FORMATS, missing_packages
from multitl.recipes import Recipe

MOST_OF_A_SOURCE = 100  # backbones that are listed unasked


def finetune(options: argparse.Namespace) -> None:
    """Train a classifier on labelled images; judge, save and report it."""
    recipe = flags.recipe_from(options)
    if launching.is_launcher(options):
        launching.launch(options, recipe)
        return
    if options.heads or options.head_weights:
        _finetune_heads(options, recipe)
        return
    if options.repeats:
        _finetune_repeatedly(options, recipe)
        return
    result = multitl.finetune(
        options.data, backend=options.backend, output=options.out, recipe=recipe,
        overwrite=options.overwrite, resume=options.resume, log_to=options.log_to,
    )  # fmt: skip
    if group_from_environment().rank:  # the first one says it
        return
    if recipe.from_run:
        from multitl.cli.terminal import print_memory

        print_memory(result.output)
    _print_result(result, _deeper(result, options.data, options.backend))


def _finetune_heads(options: argparse.Namespace, recipe: Recipe) -> None:
    if options.repeats or options.log_to:
        raise RunError(
            "Neither repeated runs nor logs know of several heads.",
            expected="neither --repeats nor --log-to beside --heads",
            received=f"repeats = {options.repeats}, log_to = {options.log_to!r}",
            fix="leave them out",
        )
    from multitl.cli.terminal import print_heads

    result = multitl.finetune_heads(
        options.data, options.heads, head_weights=options.head_weights, backend=options.backend, output=options.out,
        recipe=recipe, overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    print_heads(result)


def _finetune_repeatedly(options: argparse.Namespace, recipe: Recipe) -> None:
    from multitl.cli.terminal import print_repeats
    from multitl.distribution.group import group_from_environment
    from multitl.runs.folders import check_folder
    from multitl.training.candidates import settle
    from multitl.training.groups import refuse_group

    refuse_group(group_from_environment(), "--repeats")

    def run(one: Recipe, output: Path) -> multitl.Result:
        return multitl.finetune(
            options.data, backend=options.backend, output=output, recipe=one,
            overwrite=options.overwrite, resume=options.resume, log_to=options.log_to,
        )  # fmt: skip

    default = f"runs/{Path(options.data).resolve().stem}-{folder_name(recipe.backbone)}-repeats"
    folder, recipe = Path(options.out or default), settle(recipe)
    for one, place in plan(recipe, folder, options.repeats):  # all of them before the first run
        check_folder(place, one, check_backend(options.backend), overwrite=options.overwrite, resume=options.resume)
    print_repeats(repeat(run, recipe, folder, options.repeats), folder / SUMMARY)


def choose(options: argparse.Namespace) -> None:
    """Compare backbones on labelled images, without training any of them."""
    choice = multitl.choose(
        options.data, options.backbones, backend=options.backend, output=options.out,
        recipe=flags.recipe_from(options), overwrite=options.overwrite,
    )  # fmt: skip
    from multitl.cli.terminal import print_choice

    print_choice(choice, shlex.join([program(), *choice.command[1:]]) if choice.command else "")


def evaluate(options: argparse.Namespace) -> None:
    """Judge a finished run on labelled images."""
    metrics = multitl.evaluate(
        options.folder, options.data, backend=options.backend, split=options.split, images=options.images,
        path_column=options.path_column, label_column=options.label_column, costs=options.costs or "",
        max_unreadable=options.max_unreadable,
    )  # fmt: skip
    if options.json:
        print(json.dumps(metrics, indent=2))
    else:
        from multitl.cli.terminal import print_metrics
        from multitl.runs.head_runs import has_heads

        by_head = metrics if has_heads(options.folder) else {"": metrics}
        for name, figures in by_head.items():
            print_metrics(figures, name)


def predict(options: argparse.Namespace) -> None:
    """Classify image files with a finished run."""
    if options.csv or options.jsonl:
        _predict_as_it_comes(options)
        return
    predictions = multitl.predict(options.folder, options.images, backend=options.backend, costs=options.costs or "")
    if options.json:
        print(json.dumps([_likeliest(row, options.top) for row in predictions], indent=2))
    else:
        from multitl.cli.terminal import print_answers, print_labelled, print_numbers, print_predictions
        from multitl.runs.head_runs import has_heads

        if has_heads(options.folder):
            print_answers(predictions)
        elif any(VALUE in row for row in predictions):
            print_numbers(predictions)
        elif any(isinstance(row.get("predicted"), list) for row in predictions):
            print_labelled(predictions, options.top or 0)
        else:
            print_predictions([_likeliest(row, options.top or 1) for row in predictions])


def _predict_as_it_comes(options: argparse.Namespace) -> None:
    """As many images as there are, each row written as soon as it is known."""
    from multitl.cli.answers import check_new, print_lines, write_csv, write_heads
    from multitl.judging.opening import check_predict, refuse_costs
    from multitl.runs.head_runs import has_heads, read_heads, run_of

    if options.csv:
        check_new(options.csv, overwrite=options.overwrite)
    folder = Path(options.folder)
    names = list(read_heads(folder).kinds) if has_heads(folder) else []
    if names:
        refuse_costs(folder, options.costs or "")
    run, paths = check_predict(run_of(folder, names[0]) if names else folder, options.images, options.costs or "")
    adapter = load_backend(options.backend)
    from multitl.judging.evaluation import classify
    from multitl.judging.several_heads import load_heads

    with adapter.fast_paths():
        answering = load_heads(folder) if names else run
        _ = answering.network  # what is wrong with it is found before a file is emptied
        found = classify(answering, paths, is_watched=bool(options.csv) or not sys.stdout.isatty())
        rows = (_likeliest(row, options.top) for row in found)
        if options.jsonl:
            print_lines(rows)
            return
        count, faults = write_heads(options.csv, rows, names) if names else write_csv(
            options.csv, rows, run.card.class_names
        )  # fmt: skip
    print(f"{count:,} images, {faults:,} of them unreadable: {options.csv}")


def explain(options: argparse.Namespace) -> None:
    """Show where in images a finished run sees what it says."""
    from multitl.runs.folders import beside

    output = Path(options.out) if options.out else beside(options.folder, "explained")
    images = options.images[0] if len(options.images) == 1 else options.images
    rows = multitl.explain(
        options.folder, images, classes=[name for name in options.classes.split(",") if name], true=options.true,
        output=output, backend=options.backend, overwrite=options.overwrite,
    )  # fmt: skip
    from multitl.cli.explained import print_explanations, print_explanations_as_json

    if options.json:
        print_explanations_as_json(output)
    else:
        print_explanations(rows, output)


def review(options: argparse.Namespace) -> None:
    """Find what may be wrong with the data of a finished run."""
    found = multitl.review(
        options.folder, options.data, backend=options.backend, output=options.out, overwrite=options.overwrite
    )
    if options.json:
        print(json.dumps(found.about, indent=2))
        return
    from multitl.cli.reviews import print_review
    from multitl.runs.folders import beside

    recipe, again = str(Path(options.folder, "recipe.toml")), str(beside(options.folder, "relabelled"))
    given = ["--recipe", recipe, "--relabel", str(found.table), "--out", again]
    print_review(found, shlex.join([program(), "finetune", found.about["data"], *given]))


def drift(options: argparse.Namespace) -> None:
    """Say whether new images look like those that a run was made of."""
    found = multitl.drift(options.folder, options.images, options.data, backend=options.backend)
    if options.json:
        print(json.dumps(found.about(), indent=2))
    else:
        from multitl.cli.reviews import print_drift

        print_drift(found)


def list_backbones(options: argparse.Namespace) -> None:
    """List the pretrained backbones."""
    infos = [info for source in SOURCES for info in backbones(source)]
    chosen = [info for info in infos if _matches(info.name, options.pattern)]
    if not chosen:
        raise BackboneError(
            f"No backbone matches {options.pattern!r}.",
            expected="part of a name, or a glob such as 'keras/ResNet*'",
            nearest=nearest_names(options.pattern, [info.name for info in infos]),
            fix="multitl backbones",
        )
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in chosen], indent=2))
    else:
        from multitl.cli.terminal import print_backbones

        print_backbones(chosen, most=len(chosen) if options.pattern else MOST_OF_A_SOURCE)


def translate(options: argparse.Namespace) -> None:
    """Save a pretrained network as a Keras model, its original classes included."""
    output = options.out or f"runs/{folder_name(options.name)}"
    made = multitl.translate(
        options.name, output, weights=options.weights, image_size=options.image_size, head=options.head,
        preprocess=options.preprocess, backend=options.backend, overwrite=options.overwrite,
    )  # fmt: skip
    from multitl.cli.terminal import print_network

    steps = {"classify images on its original classes": [program(), "predict", output, "IMAGES", "--top", "3"]}
    print_network(
        made, {purpose: shlex.join(step) for purpose, step in steps.items()} if options.head == "keep" else {}
    )


def port(options: argparse.Namespace) -> None:
    """Write a model for another ecosystem, proved there."""
    from multitl.porting.asked import check_port
    from multitl.porting.formats import second_outputs

    formats = [one.strip() for one in options.to.split(",")]
    also = second_outputs(explain=options.explain, unknown=options.unknown)
    check_port(
        options.model, formats, options.out, images=options.images, calibration=options.calibration,
        weights=options.weights, image_size=options.image_size, overwrite=options.overwrite, also=also,
    )  # fmt: skip
    adapter = load_backend(options.backend)
    from multitl.porting.exporting import port_all

    with adapter.fast_paths():
        ported, faults = port_all(
            options.model, formats, options.out, backend=adapter, images=options.images,
            calibration=options.calibration, preprocess=options.preprocess, weights=options.weights,
            image_size=options.image_size, overwrite=options.overwrite, also=also,
        )  # fmt: skip
    if options.json:
        print(json.dumps([one.card | {"output": str(one.output)} for one in ported], indent=2))
    elif ported:
        from multitl.cli.terminal import print_ports

        print_ports(ported)
    for fault in faults[:-1]:
        print(f"multitl: {fault}", file=sys.stderr)
    if faults:
        raise faults[-1]


def list_ports(options: argparse.Namespace) -> None:
    """List the formats that models leave in, and what of them works here."""
    if options.json:
        rows = {name: dataclasses.asdict(one) | {"missing": missing_packages(one)} for name, one in FORMATS.items()}
        print(json.dumps(rows, indent=2))
        return
    from multitl.cli.terminal import print_formats

    print_formats({name: (one, missing_packages(one)) for name, one in FORMATS.items()})


def demo(options: argparse.Namespace) -> None:
    """Try it: grade 2,624 photos of solar cells, all local."""
    from multitl.cli.demo import LICENCE, RECIPE, write_labels
    from multitl.runs.folders import beside

    labels = write_labels(beside(options.out, "labels.csv"))  # beside the run folder, which must start empty
    print(LICENCE, file=sys.stderr)
    result = multitl.finetune(
        labels, backend=options.backend, output=options.out, recipe=RECIPE,
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    _print_result(
        result, {"train on your own images": ["finetune", "FOLDER"]} | _deeper(result, str(labels), options.backend)
    )


def bench(options: argparse.Namespace) -> None:
    """Race the frameworks against each other on this machine."""
    if results := bench_flags.compared(options):
        from multitl.bench.board import print_changes
        from multitl.bench.comparison import compare

        print_changes(compare(*results))
        return
    settings = bench_flags.options_from(options)
    from multitl.bench import command

    command.bench(
        settings, Path(options.out), markdown=options.markdown, command=shlex.join(["multitl", *sys.argv[1:]]),
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip


def cache(options: argparse.Namespace) -> None:
    """Show what is kept to save time, or remove some of it."""
    from multitl.system.cache import cache_folder, cache_limit, look, remove

    limit = cache_limit()
    kept = remove(options.clear) if options.clear else look()
    if options.json:
        about = {"folder": str(cache_folder()), "limit": limit, "removed": bool(options.clear)}
        print(json.dumps(about | {"kinds": [dataclasses.asdict(one) for one in kept]}, indent=2))
    else:
        from multitl.cli.terminal import print_cache

        print_cache(kept, cache_folder(), limit, is_removed=bool(options.clear))


def doctor(options: argparse.Namespace) -> None:
    """Check this machine: backends, devices, known traps."""
    from multitl.doctor.diagnosis import examine

    diagnosis = examine()
    if options.json:
        print(json.dumps(dataclasses.asdict(diagnosis), indent=2))
    else:
        from multitl.cli.terminal import print_diagnosis

        print_diagnosis(diagnosis)
    diagnosis.insist_on_a_backend()


COMMANDS = {
    "finetune": (finetune, flags.add_finetune_flags, "DATA"),
    "choose": (choose, flags.add_choose_flags, "DATA --backbones A,B,..."),
    "evaluate": (evaluate, flags.add_evaluate_flags, "RUN DATA"),
    "compare": (finished_runs.compare, finished_runs.add_compare_flags, "RUN RUN..."),
    "predict": (predict, flags.add_predict_flags, "RUN IMAGES..."),
    "explain": (explain, flags.add_explain_flags, "RUN IMAGES..."),
    "review": (review, flags.add_review_flags, "RUN"),
    "drift": (drift, flags.add_drift_flags, "RUN IMAGES"),
    "backbones": (list_backbones, flags.add_backbones_flags, "[PATTERN]"),
    "serve": (finished_runs.serve, finished_runs.add_serve_flags, "RUN"),
    "translate": (translate, flags.add_translate_flags, "NETWORK"),
    "port": (port, flags.add_port_flags, "MODEL --to FORMAT"),
    "ports": (list_ports, flags.add_json_flag, ""),
    "demo": (demo, flags.add_demo_flags, ""),
    "bench": (bench, bench_flags.add_bench_flags, "[compare A B]"),
    "cache": (cache, flags.add_cache_flags, ""),
    "doctor": (doctor, flags.add_json_flag, ""),
}


def _print_result(result: multitl.Result, steps: dict[str, list[str]]) -> None:
    from multitl.cli.terminal import print_result

    run = str(result.output)
    steps = steps | {
        "classify new images": ["predict", run, "IMAGES"],
        "judge on other labelled images": ["evaluate", run, "DATA"],
    }
    print_result(result, {purpose: shlex.join([program(), *command]) for purpose, command in steps.items()})


def _deeper(result: multitl.Result, data: str, backend: str | None) -> dict[str, list[str]]:
    """The same run with the backbone trained as well, where that was not wanted."""
    from multitl.runs.folders import beside

    recipe = Path(result.output, "recipe.toml")
    known = Recipe.read(recipe)
    if known.unfreeze != "none" or known.adapts_head:  # a head that is fitted to other features stays on them
        return {}
    command = [
        "finetune",
        data,
        "--recipe",
        str(recipe),
        "--unfreeze",
        "auto",
        "--out",
        str(beside(result.output, "unfrozen")),
    ]
    return {"train the backbone as well, kept only if it gains": command + (["--backend", backend] if backend else [])}


def program() -> str:
    """How this program can be called again: by its path, if it is not on PATH, as after `make demo`."""
    import shutil

    typed = sys.argv[0]
    return typed if Path(typed).name == "multitl" and not shutil.which("multitl") else "multitl"


def _likeliest(prediction: dict[str, Any], count: int | None) -> dict[str, Any]:
    """The prediction with its `count` (None: all) highest probabilities, highest first; of several heads each one."""
    if "probabilities" not in prediction:
        return {key: _likeliest(said, count) if isinstance(said, dict) else said for key, said in prediction.items()}
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    return prediction | {"probabilities": dict(ranked[:count])}


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return pattern in name or fnmatch.fnmatchcase(name, pattern)
