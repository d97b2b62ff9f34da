"""Text that says it is JSON or TOML: what is not is one line, wherever it is read."""

from __future__ import annotations

import json
import math

import pytest

from seqjepa import recipes
from seqjepa.experiments.scale import load_scale
from shards.errors import ConfigError, FormatError
from shards.json_fields import json_object, strict_json

DEEP = 100_000
NASTY = {
    "lists": (b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested too deeply"),
    "objects": (b'{"a": ' * DEEP + b"1" + b"}" * DEEP, "nested too deeply"),
    "unclosed": (b"[" * DEEP, "nested too deeply"),
    "not UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff"),
    "thousands of digits": (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
    "beyond float64": (b'{"a": 1e999}', "1e999 is too large a number"),
    "NaN": (b'{"a": NaN}', "NaN is no number of JSON"),
    "Infinity": (b'{"a": [1, -Infinity]}', "-Infinity is no number of JSON"),
    "twice": (b'{"b": {"a": 1, "c": 2, "a": 3}}', "the key 'a' occurs twice"),
    "cut": (b'{"a": 1', "Expecting"),
    "empty": (b"", "Expecting value"),
}


@pytest.mark.parametrize("name", NASTY)
def test_what_is_no_json_is_a_line(name: str) -> None:
    text, said = NASTY[name]
    with pytest.raises(ValueError, match=said) as caught:
        strict_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    with pytest.raises(FormatError, match=f"x.json is not JSON: .*{said}"):
        json_object(text, "x.json")


def test_what_json_says() -> None:
    record = {"a": [1, -2.5, "Tür", None, True], "b": {}, "c": 10**300}
    assert strict_json(json.dumps(record).encode()) == strict_json(json.dumps(record)) == record
    assert strict_json(b"\xef\xbb\xbf[1e300]") == [1e300]
    nan, infinite = strict_json(b"[NaN, -Infinity]", nan=True)
    assert math.isnan(nan)
    assert infinite == -math.inf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "is not TOML: Exceeds the limit"),
        (b'name = "\xff"', "can't decode byte 0xff"),
        (b"name = 'a'\nname = 'b'", "Cannot overwrite a value"),
        (b"optim.lr = nan", "optim.lr = nan should be a finite number"),
        (b"optim.lr = inf", "optim.lr = inf should be a finite number"),
        (b".".join([b"a"] * 5000) + b" = 1", "unknown key a"),
    ],
)
def test_what_is_no_toml_is_a_line(tmp_path, text: bytes, said: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        recipes.load_recipe(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_scale(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000, "nan", "{a=" * 3000])
def test_an_option_that_is_no_toml_is_a_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"optim.lr = .* should be a"):
        recipes.load_recipe("synth-tiny", [f"optim.lr={value}"])
