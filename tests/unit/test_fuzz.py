"""Inputs nobody thought of: whatever is read, the answer is a value or one error an operator can act on.

`pytest` takes few and always the same examples; FUZZ=5000 in the environment takes so many new ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfymodal.comfyui.outputs import read_history, safe_name
from comfymodal.comfyui.refusals import explain_node_error, explain_refusal
from comfymodal.errors import ComfymodalError, error_from_dict
from comfymodal.project.load import load_project
from comfymodal.runs.names import name_outputs
from comfymodal.workflow.check import check_graph, require_valid
from comfymodal.workflow.graph import read_workflow
from comfymodal.workflow.override import apply_overrides, parse_overrides
from tests.conftest import WORKFLOWS

INFO = json.loads((Path(__file__).parent / "workflow" / "object_info.json").read_text())

ROUNDS = int(os.environ.get("FUZZ", "0"))

fuzz = settings(
    max_examples=ROUNDS or 60,
    derandomize=not ROUNDS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))
node_ids = st.sampled_from(["1", "2", "57:8", "a.b", "KSampler", ""])
links = st.tuples(node_ids, st.integers(-2, 3)).map(list)
nodes = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from([*INFO, "NoSuchNode"]) | st.text(max_size=6),
        "inputs": st.dictionaries(
            st.sampled_from(["seed", "steps", "text", "image", "images", "width", "model"]) | st.text(max_size=6),
            values | links,
            max_size=5,
        ),
    },
    optional={"_meta": values | st.fixed_dictionaries({"title": st.text(max_size=8)})},
)
graphs = st.dictionaries(node_ids, nodes, min_size=1, max_size=4)
overrides = st.lists(
    st.text(max_size=20)
    | st.builds(
        "{}.{}{}{}".format,
        node_ids | st.sampled_from(["Canvas", "KSampler[*]", "@x", '"x"']),
        st.sampled_from(["seed", "text", "image", "model.width", ""]),
        st.sampled_from(["=", ":=", "", "=@", "=@@"]),
        st.text(max_size=10) | st.sampled_from(["random", "1e3", "[1]", '["1", 0]', "true", "nan"]),
    ),
    max_size=3,
)
yaml_lines = st.lists(
    st.sampled_from(
        ["version: 1", "version: 2", "comfyui:", "  url: x", "  idle_stop: 1e-4", "render: {naming: '{'}", "a: &a [*a]"]
    )
    | st.text(max_size=15),
    max_size=6,
).map("\n".join)
texts = st.text(max_size=60) | values.map(json.dumps) | st.just("[" * 500)
samples = st.sampled_from(sorted(WORKFLOWS.glob("*.json"))).map(Path.read_text)
cut = st.builds(lambda text, where: text[: int(len(text) * where)], samples, st.floats(0, 1))
templates = st.sampled_from(["{stem}{ext}", "{title}/{stem}{ext}", "x{ext}", "{node_id}-{index:03}{ext}"])


def accepts_or_explains(work: Callable[[], object]) -> None:
    """Run it; a `ComfymodalError` must be complete, anything else is a bug and fails the test."""
    refusal: ComfymodalError | None = None
    try:
        work()
    except ComfymodalError as error:
        refusal = error
    if refusal is not None:
        assert refusal.message.strip()
        assert refusal.exit_code in (2, 3, 4)
        sent = json.loads(json.dumps(refusal.to_dict(), default=str))
        assert error_from_dict(sent).exit_code == refusal.exit_code


@fuzz
@given(content=texts | cut)
def test_workflow_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    accepts_or_explains(lambda: read_workflow(path))


@fuzz
@given(graph=graphs, arguments=overrides)
def test_render_input(tmp_path: Path, graph: dict[str, Any], arguments: list[str]) -> None:
    def work() -> None:
        path = tmp_path / "w.json"
        path.write_text(json.dumps(graph))
        workflow = read_workflow(path)
        overridden = apply_overrides(workflow.graph, parse_overrides(arguments, workflow.graph), object_info=INFO)
        require_valid(check_graph(overridden.graph, object_info=INFO))
        json.dumps(overridden.graph, allow_nan=False)

    accepts_or_explains(work)


@fuzz
@given(content=yaml_lines | texts)
def test_project_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "comfymodal.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    accepts_or_explains(lambda: load_project(path, environ={}, cwd=tmp_path))


@fuzz
@given(entry=values)
def test_history(entry: Any) -> None:
    for file in read_history(entry if isinstance(entry, dict) else {"outputs": entry}).files:
        name = safe_name(file.filename)
        assert name
        assert "/" not in name
        assert name not in (".", "..")


@fuzz
@given(body=st.dictionaries(st.text(max_size=8), values))
def test_refusal(body: dict[str, Any]) -> None:
    for reply in (body, {"node_errors": body}, {"error": body}, {"node_errors": {"1": {"errors": [body]}}}):
        assert explain_refusal(reply, {}).message
    assert explain_node_error(body, "Title").message


@fuzz
@given(names=st.lists(st.text(max_size=8), max_size=5), template=templates)
def test_output_names(names: list[str], template: str) -> None:
    outputs = [
        {"name": safe_name(name), "node_id": name, "title": name, "class_type": "Save", "prompt": 0} for name in names
    ]
    placed = [str(path).lower() for _, path in name_outputs(outputs, template=template, fields={"run_id": "r"})]
    assert len(set(placed)) == len(placed)
    assert not any(".." in Path(path).parts or Path(path).is_absolute() for path in placed)
