"""docs/how-to/ eight-gpus, slurm, kubernetes, cloud: what can run here runs, and files for others have their form."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import pytest
from quick_runs import QUICK, make_photos

from multitl.cli.main import parse

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
NAMES = ("eight-gpus", "slurm", "kubernetes", "cloud")
SRUN = """#!{python}
# What srun is to its tasks, as the batch script's #SBATCH lines say: each on a node of its own, all of which are here.
import os, subprocess, sys
tasks = [subprocess.Popen(sys.argv[2:], env=os.environ | dict(
    SLURM_JOB_ID="{job}", SLURM_PROCID=str(number), SLURM_LOCALID="0", SLURM_STEP_NUM_TASKS="2",
    SLURM_STEP_NODELIST="localhost,localhost")) for number in range(2)]
assert sys.argv[1] == "--kill-on-bad-exit=1"
sys.exit(max(task.wait() for task in tasks))
"""

# Fields of the custom resource RayJob, from KubeRay's helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml (v1), and of
# Kubernetes' pods, as far as the page uses them.
RAY_JOB = {
    "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": str},
    "spec": {
        "entrypoint": str, "shutdownAfterJobFinishes": bool, "backoffLimit": int, "submissionMode": str,
        "rayClusterSpec": {
            "rayVersion": str,
            "headGroupSpec": {"rayStartParams": {}, "template": {}},
            "workerGroupSpecs": [{
                "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": {},
                "template": {},
            }],
        },
    },
}  # fmt: skip
POD = {
    "spec": {
        "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
        "containers": [{
            "name": str, "image": str, "env": [{"name": str, "value": str}], "resources": {"limits": {}},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }],
    },
}  # fmt: skip

if keras.config.backend() != "jax":
    pytest.skip("the pages are the same under each", allow_module_level=True)


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[list[str]]:
    """Every `multitl` of a page, in blocks of any kind, without what comes after it in the shell's line."""
    lines = "\n".join(re.findall(r"^```\w+\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)).splitlines()
    found = [re.search(r"multitl (finetune [^&;']*)", line) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


def faults(value: Any, form: Any, where: str = "") -> list[str]:
    """What of a YAML file's value is not of a form: values, types, or {} where any keys are fine."""
    if isinstance(form, Mapping):
        if not isinstance(value, Mapping):
            return [f"{where}: no mapping"]
        unknown = [f"{where}.{key}" for key in value if form and key not in form]
        return unknown + [
            fault for key in value.keys() & form.keys() for fault in faults(value[key], form[key], f"{where}.{key}")
        ]
    if isinstance(form, list):
        return [fault for index, one in enumerate(value) for fault in faults(one, form[0], f"{where}[{index}]")]
    return [] if value == form or (isinstance(form, type) and type(value) is form) else [f"{where}: {value!r}"]


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_short_and_their_commands_are_ours(name: str):
    assert len(page(name).splitlines()) <= 25
    assert commands(name)
    for command in commands(name):
        parse(command)


@pytest.mark.slow
def test_workers_of_this_machine(tmp_path: Path):
    make_photos(tmp_path / "photos", ["cat", "dog"], 12)
    refused, fine = [shlex.split(line.removeprefix("$ ")) for block in blocks("eight-gpus", "console")
                     for line in block.splitlines()]  # fmt: skip
    done = run_multitl(refused[1:], tmp_path)
    assert done.returncode == 2 and "--workers 2" in done.stderr  # no GPU here
    done = run_multitl([*fine[1:], *QUICK], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout and json.loads((tmp_path / "runs/shared/metrics.json").read_text())


@pytest.mark.slow
def test_the_batch_script(tmp_path: Path):
    """By bash, with a stand-in for srun alone."""
    make_photos(tmp_path / "photos", ["cat", "dog"], 12)
    script = blocks("slurm", "bash")[0].replace("runs/photos", f"runs/photos {shlex.join(QUICK)}")
    assert subprocess.run(["bash", "-n"], input=blocks("slurm", "bash")[1], text=True).returncode == 0
    (tmp_path / "bin").mkdir()
    port = 61440 + os.getpid() % 4000
    (tmp_path / "bin" / "srun").write_text(SRUN.format(python=sys.executable, job=port - 61440))
    (tmp_path / "bin" / "multitl").write_text(f'#!/bin/sh\nexec {sys.executable} -m multitl "$@"\n')
    for name in ("srun", "multitl"):
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for _ in range(2):  # again, as when it is requeued
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path},
                              capture_output=True, text=True, timeout=900)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "complete already" in done.stderr and done.stdout.count("report") == 1


def test_the_job_of_kuberay():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(blocks("kubernetes", "yaml")[0])
    assert faults(job, RAY_JOB) == []
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for pod in pods:
        assert faults(pod, POD) == []
        mounted = {mount["name"] for one in pod["spec"]["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    options = parse(shlex.split(job["spec"]["entrypoint"])[1:])
    assert options.workers == sum(group["replicas"] for group in cluster["workerGroupSpecs"])
    assert options.data.startswith("/shared/") and options.out.startswith("/shared/")


def test_the_cluster_of_a_cloud():
    """By Ray's own schema, where Ray is installed."""
    yaml = pytest.importorskip("yaml")
    cluster = yaml.safe_load(blocks("cloud", "yaml")[0])
    assert cluster["head_node_type"] in cluster["available_node_types"]
    ray = pytest.importorskip("ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    pytest.importorskip("jsonschema").validate(cluster, schema)


def run_multitl(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "multitl", *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=900)  # fmt: skip
