from __future__ import annotations

import random
from pathlib import Path

import pytest

from trueup.errors import UserError
from trueup.worlds.registry import load_world

ECHO = '''
from __future__ import annotations

from dataclasses import dataclass

from trueup.worlds.protocol import WorldPrompt


@dataclass(frozen=True)
class Echo:
    """Say the word again."""

    name: str = "echo"
    description: str = "repeat a word"

    def prompts(self, split):
        return [WorldPrompt(f"{split}/{w}", f"Say {w}.", "echo", "only", split, {"word": w}) for w in ("hi", "ho")]

    def demonstrate(self, prompt, rng):
        return rng.choice((prompt.content["word"], "hm"))

    def gold(self, prompt, response, ended=True):
        return {"right": float(response == prompt.content["word"])}

    def annotator(self, prompt, response, ended=True):
        return self.gold(prompt, response)["right"]

    def prefers_first(self, prompt, first, second, rng):
        return self.annotator(prompt, first) > self.annotator(prompt, second)

    def ideal(self, prompt):
        return prompt.content["word"]


ready = Echo()


def make():
    return Echo(name="made")


nothing = 3
'''


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return path


def test_the_built_in_world_loads_by_name():
    assert load_world("errands").name == "errands"


@pytest.mark.parametrize(("attribute", "name"), [("Echo", "echo"), ("ready", "echo"), ("make", "made")])
def test_a_third_party_world_is_one_file(echo: Path, attribute: str, name: str):
    world = load_world(f"{echo}:{attribute}")
    assert world.name == name
    prompt = world.prompts("test")[0]
    assert world.gold(prompt, world.ideal(prompt)) == {"right": 1.0}
    assert world.demonstrate(prompt, random.Random(0)) in ("hi", "hm")


def test_two_files_of_one_name_do_not_mix(echo: Path, tmp_path: Path):
    other = tmp_path / "elsewhere" / "echo.py"
    other.parent.mkdir()
    other.write_text(ECHO.replace('"echo"', '"other"'))
    assert [load_world(f"{path}:Echo").name for path in (echo, other, echo)] == ["echo", "other", "echo"]


@pytest.mark.parametrize("name", ["errand", "Errands", "", "worlds:errands"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(name: str):
    with pytest.raises(UserError, match="errands"):
        load_world(name)


def test_the_nearest_name_is_suggested():
    with pytest.raises(UserError, match="did you mean 'errands'"):
        load_world("erands")


def test_each_fault_of_a_file_is_named(echo: Path, tmp_path: Path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1 / 0\n")
    unparsable = tmp_path / "unparsable.py"
    unparsable.write_text("def (:\n")
    for name, message in [
        (f"{tmp_path}/none.py:world", "none.py: no such file"),
        (f"{echo}:Ecko", "no 'Ecko'; did you mean 'Echo'"),
        (f"{echo}:nothing", "is not a world, it lacks name, description, prompts"),
        (f"{broken}:x", "broken.py: failed while loading: ZeroDivisionError"),
        (f"{unparsable}:x", "unparsable.py: failed while loading: SyntaxError"),
    ]:
        with pytest.raises(UserError, match=message):
            load_world(name)
