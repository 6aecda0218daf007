"""rig.toml is validated once, and a mistake names its place and the nearest known word."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import config
from rig.errors import UsageError

GOOD = """
[default]
kernel = "one"
machine = "small"
[kernel.one]
configs = ["base"]
[machine.small]
cpus = 1
"""


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "rig.toml"
    path.write_text(text)
    return config.load(path)


def test_defaults_and_names(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.kernel().name == "one"
    assert loaded.kernel().configs == ("base",)
    assert loaded.emulated("small").cpus == 1
    assert loaded.root == tmp_path


def test_the_projects_own_file_is_valid() -> None:
    loaded = config.load(Path(__file__).parents[1] / "rig.toml")
    assert loaded.kernel().series == "patches/async-submit/6.12"


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("cpus = 1", "cpu = 1"), "unknown key 'cpu' in [machine.small]", "'cpus'"),
        (("cpus = 1", "cpus = 0"), "cpus is 0", "between 1 and 64"),
        (("cpus = 1", 'cpus = "two"'), "[machine.small] Expected `int`, got `str`", ""),
        (("cpus = 1", 'accel = "xen"'), "accel is 'xen'", "auto, tcg, kvm"),
        (("cpus = 1", 'kind = "vmware"'), "kind is 'vmware'", "qemu"),
        (('["base"]', '["base"]\nmake = ["W"]'), "[kernel.one] make has 'W'", "NAME=VALUE"),
        (('["base"]', '["base"]\nmake = ["O=/tmp"]'), "make sets O, which the rig does", ""),
        (('kernel = "one"', 'kernel = "onne"'), "no kernel 'onne'", "'one'"),
        (("[default]", "[defaults]"), "unknown key 'defaults' in the top level", "'default'"),
        (("[default]", "[default"), "not valid TOML", ""),
        (("[kernel.one]", "kernel = 3\n[x]"), "", ""),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, change: tuple[str, str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert message in caught.value.message
    assert "rig.toml" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_the_root_is_found_upwards(tmp_path: Path) -> None:
    (tmp_path / "rig.toml").write_text(GOOD)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert config.find_root(deep) == tmp_path


def test_no_root_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no rig\.toml"):
        config.find_root(tmp_path)
