from __future__ import annotations

import re

import pytest

from comfymodal.project.naming import NAMING_FIELDS, check_naming


@pytest.mark.parametrize(
    "template",
    [
        "{stem}{ext}",
        "{workflow}/{run_id}_{index:03}{ext}",
        "{index:3d}",
        "out",
        "a..b/{stem}",
        "{{x}}{ext}",
        "数　{stem}",
    ],
)
def test_a_template_that_can_be_filled_is_kept(template: str) -> None:
    assert check_naming(template) == template
    values = {name: 7 if name == "index" else name for name in NAMING_FIELDS}
    assert template.format_map(values)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{foo}",
            "no field {foo}; fields: run_id, prompt, node_id, title, class_type, index, stem, ext, seed, workflow",
        ),
        ("{}", "no field {}"),
        ("{0}", "no field {0}"),
        ("{stem.__class__}", "no field {stem.__class__}"),
        ("{stem[0]}", "no field"),
        ("{stem!r}", "cannot format {stem}"),
        ("{seed:05}", "cannot format {seed}"),
        ("{index:099999999}", "cannot format {index}"),
        ("{index:{stem}}", "cannot format {index}"),
        ("{stem", "not a name template"),
        ("}", "not a name template"),
        ("/a/{stem}", "must be relative"),
        ("~/{stem}", "must be relative"),
        ("C:/{stem}", "must be relative"),
        ("a\\{stem}", "backslashes"),
        ("a\n{stem}", "control characters"),
        ("../{stem}", "`..`"),
        ("a/../{stem}", "`..`"),
        ("a/ .. /{stem}", "`..`"),
        ("./{stem}", "`.`"),
        ("a//{stem}", "empty parts"),
        ("{stem}/", "empty parts"),
        ("", "empty parts"),
    ],
)
def test_a_template_that_cannot_be_filled_or_leaves_the_folder_is_refused(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_naming(template)
