from __future__ import annotations

import pytest

from comfymodal.errors import ProjectError
from comfymodal.project.problems import Mark
from comfymodal.project.tree import Node, dotted, parse_scalar, parse_yaml


def parse(text: str) -> Node:
    root = parse_yaml(text, lambda line, column: Mark("f", line, column))
    assert root is not None
    return root


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1E5", 100000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-0.0", 0.0),
        (".inf", float("inf")),
        ("-.Inf", float("-inf")),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+7", 7),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 5000, "9" * 5000),
        ("1e999", float("inf")),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("15m", "15m"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_scalar(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert parse("""["1e-4", '5', "true", ! 7, |-\n  8\n]""".replace("|-\n  8\n", "'8'")).plain() == [
        *("1e-4", "5", "true", "7", "8")
    ]


def test_every_value_and_key_knows_its_place() -> None:
    root = parse("a: 1\nb:\n  - x\n  - {c: 2}\n")
    places = {dotted(path): (node.mark.line, node.mark.column) for path, node in root.walk()}
    assert places == {"": (1, 1), "a": (1, 4), "b": (3, 3), "b[0]": (3, 5), "b[1]": (4, 5), "b[1].c": (4, 9)}
    assert root.keys["b"] == Mark("f", 2, 1)
    assert root.closest(("b", 1, "zz", 5)).mark == Mark("f", 4, 5)


def test_an_alias_repeats_the_value_and_points_to_where_it_is_written() -> None:
    root = parse("a: &x {k: 1}\nb: *x\n")
    assert root.plain() == {"a": {"k": 1}, "b": {"k": 1}}
    assert root.closest(("b", "k")).mark == Mark("f", 1, 11)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "---\n...\n", "null\n"])
def test_nothing_written_is_no_tree(text: str) -> None:
    assert parse_yaml(text, lambda line, column: Mark("f", line, column)) is None


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef", "fg", "gh")
)
DEEP_BY_ALIAS = "a0: &a0 [[[[[[[[[[x]]]]]]]]]]\n" + "".join(
    f"a{i}: &a{i} [[[[[[[[[[*a{i - 1}]]]]]]]]]]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: a: duplicate key, first at line 1, column 1"),
        ("x: {a: 1, a: 2}\n", "f:1:11: x.a: duplicate key, first at line 1, column 5"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document starts here"),
        ("a: &x [1, *x]\n", "f:1:11: a[1]: alias *x contains itself"),
        ("a: *nowhere\n", "f:1:4: a: no anchor &nowhere before this alias"),
        (LAUGHS, "f:5:8: e[0]: too many values for a project file, counting what aliases repeat"),
        (DEEP_BY_ALIAS, "f:4:19: a3[0][0][0][0][0][0][0][0][0][0]: nested deeper than 32 levels"),
        ("[" * 100_000, f"f:1:33: {'[0]' * 32}: nested deeper than 32 levels"),
        ("a: !!python/object/apply:os.system ['true']\n", "f:1:4: a: YAML tags are not used here"),
        ("a: !!str 5\n", "f:1:4: a: YAML tags are not used here"),
        ("? [a]\n: 1\n", "f:1:3: a key must be a plain name"),
        ("a:\n\tb: 1\n", "f:2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: b: c\n", "f:1:5: not valid YAML: mapping values are not allowed here"),
        (
            "[1,\nb: 2\n",
            "f:3:1: not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a "
            "flow sequence, line 1)",
        ),
        ("a: 1\nb: \x01\n", "f:2:4: not valid YAML: character is not allowed"),
        ('a: "\\UFFFFFFFF"\n', "f:1:7: not valid YAML: no such character"),
        ("%YAML 3.0\n---\na: 1\n", "f:1:1: not valid YAML: found incompatible YAML document (version 1.* is required)"),
    ],
    ids=lambda text: text[:24].encode("unicode_escape").decode(),
)
def test_what_is_not_one_plain_document_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ProjectError) as caught:
        parse(text)
    assert caught.value.message == message


def test_all_duplicates_are_reported_at_once() -> None:
    with pytest.raises(ProjectError) as caught:
        parse("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [problem["line"] for problem in caught.value.details["problems"]] == [2, 3]
    assert caught.value.message.endswith("(and 1 more)")
