"""A database on a network file system is noticed, by what the kernel says of the mount."""

from __future__ import annotations

import os

import pytest

from mailsec.store.filesystems import network_file_system


def mounts(tmp_path, name: str, optional: str = "shared:1 "):
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = ["21 1 0:99999 / /proc rw - proc proc rw", f"36 35 {number} / /srv rw,noatime {optional}- {name} host:/srv rw,a=-"]
    text = "\n".join(lines) + "\n"
    (tmp_path / "mountinfo").write_text(text)
    return tmp_path / "mountinfo"


@pytest.mark.parametrize("name", ["nfs4", "nfs", "cifs", "smb3", "fuse.sshfs", "ceph", "9p"])
@pytest.mark.parametrize("optional", ["", "shared:1 ", "shared:1 master:2 "])
def test_network_file_systems_are_named(tmp_path, name, optional):
    table = mounts(tmp_path, name, optional)
    assert network_file_system(tmp_path / "absent" / "mailsec.db", mounts=table) == name


@pytest.mark.parametrize("name", ["ext4", "xfs", "overlay", "tmpfs", "fuse.fuse-overlayfs", "fuseblk", ""])
def test_local_ones_are_not(tmp_path, name):
    assert network_file_system(tmp_path, mounts=mounts(tmp_path, name)) == ""


def test_the_machine_that_runs_this_is_asked_without_an_error(tmp_path):
    assert network_file_system(tmp_path) in ("", network_file_system(tmp_path / "x"))
    assert network_file_system(tmp_path, mounts=tmp_path / "absent") == ""


def test_odd_lines_are_passed_over(tmp_path):
    (tmp_path / "odd").write_text("\n- - -\n36 35 0:0\n" + "x " * 50 + "\n")
    assert network_file_system(tmp_path, mounts=tmp_path / "odd") == ""
