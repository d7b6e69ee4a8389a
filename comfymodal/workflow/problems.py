"""One thing that is wrong with a graph, as a value: `check_graph` finds all of them before any is raised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from comfymodal.workflow.graph import Graph, title_of

Kind = Literal[
    "unknown_node",
    "missing_input",
    "unknown_input",
    "bad_type",
    "out_of_range",
    "not_in_list",
    "missing_model",
    "missing_file",
    "bad_link",
    "cycle",
    "no_output",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. A warning does not stop the run: the server ignores or survives it.

    `no_output` is about the whole graph: its node_id, title and class_type are empty.
    """

    kind: Kind
    node_id: str
    title: str
    class_type: str
    input_name: str | None
    message: str
    hint: str | None
    is_warning: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Place:
    """A node, or one input of it: what every problem found there has in common."""

    graph: Graph
    node_id: str
    input_name: str | None = None

    @property
    def class_type(self) -> str:
        return str(self.graph[self.node_id]["class_type"])

    def at(self, input_name: str) -> Place:
        return Place(self.graph, self.node_id, input_name)

    def problem(self, kind: Kind, message: str, *, hint: str | None = None, is_warning: bool = False) -> Problem:
        """Return a problem here; the message is completed by the node and input it is about."""
        at_input = f' input "{self.input_name}"' if self.input_name is not None else ""
        return Problem(
            kind=kind,
            node_id=self.node_id,
            title=title_of(self.graph, self.node_id),
            class_type=self.class_type,
            input_name=self.input_name,
            message=f"node {self.node_id} ({self.class_type}){at_input} {message}",
            hint=hint,
            is_warning=is_warning,
        )
