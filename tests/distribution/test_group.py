"""Who a process is among others, by what its launcher says."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace

import pytest

from multitl.cli.launching import is_launcher
from multitl.distribution.devices import VISIBLE, take_device
from multitl.distribution.group import ALONE, OURS, Group, group_from_environment
from multitl.errors import GroupError, RecipeError
from multitl.recipes import Recipe
from multitl.training.groups import check_batch, check_group, refuse_group

HAND = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[007-009],old1",
    "SLURM_JOB_ID": "5",
}


@pytest.mark.parametrize(
    ("environment", "group"),
    [
        ({}, ALONE),
        ({"MASTER_ADDR": "10.0.0.7", "LOCAL_RANK": "3"}, ALONE),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ALONE),
        (HAND, Group(1, 4, "10.0.0.7:29500")),
        (HAND | {"MASTER_ADDR": "fe80::1", "LOCAL_RANK": "2"}, Group(1, 4, "fe80::1:29500", 2)),
        (HAND | {"TORCHELASTIC_RUN_ID": "none"}, Group(1, 4, "10.0.0.7:29501")),  # torchrun itself listens at the other
        (SRUN | {"SLURM_LOCALID": "1"}, Group(3, 8, "gpu007:61445", 1)),
        (SRUN | {"SLURM_STEP_NODELIST": "one,two"}, Group(3, 8, "one:61445")),
        (SRUN | {"SLURM_STEP_NODELIST": "n[3,5-9]-ib"}, Group(3, 8, "n3:61445")),
        (SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "2000"}, Group(3, 8, "head:2000")),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5"}, ALONE),  # the script that calls srun
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ALONE),
        (SRUN | HAND, Group(1, 4, "10.0.0.7:29500")),
    ],
)
def test_a_group_is_what_the_launcher_says(environment: dict[str, str], group: Group):
    assert group_from_environment(environment) == group


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"RANK": ""}, "RANK is missing"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is missing"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is missing"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is missing"),
        ({"RANK": "4"}, "RANK cannot be '4'"),
        ({"RANK": "-1"}, "RANK cannot be '-1'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE cannot be 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE cannot be '0'"),
        ({"MASTER_PORT": "80"}, "MASTER_PORT cannot be '80'"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT cannot be '65536'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK cannot be 'x'"),
    ],
)
def test_what_is_incomplete_is_refused(change: dict[str, str], problem: str):
    with pytest.raises(GroupError, match=problem) as caught:
        group_from_environment(HAND | change)
    assert "unset RANK" in caught.value.fix


def test_a_group_starts_processes_by_its_own_environment():
    group = Group(2, 3, "[fe80::1]:4000", 1)
    assert group_from_environment(group.environment()) == group


@pytest.mark.parametrize(
    ("visible", "local", "own"),
    [("0,3", 1, "3"), ("GPU-5", 4, "GPU-5"), ("", 1, ""), ("-1", 1, "-1")],
)
def test_a_process_takes_the_gpu_of_its_number(visible: str, local: int, own: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VISIBLE, visible)
    take_device(Group(1, 8, "", local))
    assert os.environ[VISIBLE] == own


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    with pytest.raises(GroupError, match="more processes on this machine than GPUs"):
        take_device(Group(2, 3, "", 2))


def test_a_batch_has_to_be_shared_evenly():
    check_batch(4, 32)
    with pytest.raises(RecipeError, match="cannot share a batch of 32") as caught:
        check_group(Group(0, 3), Recipe(batch_size=32, unfreeze="last"))
    assert caught.value.nearest == ("30", "33")
    check_group(Group(0, 3), Recipe(batch_size=32, unfreeze="none"))  # features alone are shared as they come


def test_statistics_of_a_share_are_refused():
    recipe = Recipe(unfreeze="last", train_batch_norm=True)
    check_group(ALONE, recipe)
    with pytest.raises(RecipeError, match="other statistics in every process"):
        check_group(Group(0, 2), recipe)


def test_what_several_processes_would_only_do_twice_is_refused():
    refuse_group(ALONE, "choose")
    with pytest.raises(GroupError, match="choose works in one process"):
        refuse_group(Group(0, 2), "choose")


@pytest.mark.parametrize(
    ("environment", "options", "told"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1"}, {"workers": 2}, "unset RANK"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, {"devices": "all"}, "leave --devices out, or unset RANK"),
        (HAND, {"engine": "ray", "workers": 4}, "leave --engine out"),
        (HAND, {"workers": 3}, "leave --workers out"),
    ],
)
def test_who_was_started_as_a_worker_starts_none(environment: dict, options: dict, told: str, monkeypatch):
    asked = Namespace(**{"workers": None, "engine": "", "devices": "", "address": ""} | options)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(GroupError) as caught:
        is_launcher(asked)
    assert told in caught.value.fix
    monkeypatch.setenv(OURS, "1")
    assert not is_launcher(asked)


def test_an_address_alone_is_a_wish_for_workers():
    assert is_launcher(Namespace(workers=None, engine="", devices="", address="auto"))  # and is then refused


def test_alone_nothing_is_loaded():
    code = "import multitl, sys; assert not {'ray', 'torch.distributed', 'multitl.distribution'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
