"""The page of `runs report`: one HTML file about a training, or about the variants of a sweep; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from comfymodal import __version__
from comfymodal.operations.results import RunView
from comfymodal.operations.train_report_results import SampleShot, TrainedRun, TrainingPage
from comfymodal.output.page_chart import Line, chart, swatch
from comfymodal.output.page_parts import (
    code,
    document,
    facts,
    folded,
    image,
    note,
    picture,
    section,
    table,
    text,
    tiles,
)
from comfymodal.output.words import bytes_in_words, count, money_in_words, seconds_in_words

SETTINGS_SHOWN = 12
LABELS_MOST = 3
"""Settings in a variant's label; of more its name says enough."""

_PHASES = {
    "loading": "loading the model",
    "downloading": "downloading the model",
    "quantizing": "quantizing the model",
    "resuming": "loading the checkpoint",
    "network": "building the network",
    "dataset": "reading the dataset",
    "caching": "encoding the dataset",
    "sampling": "making samples",
}


def page(report: TrainingPage) -> str:
    """The whole page as text."""
    if len(report.runs) == 1:
        run = report.runs[0]
        return document(f"{run.name}: training", [*_run_page(run), _foot(report)])
    return document("Sweep: " + _common_name(report.runs), [*_sweep_page(report), _foot(report)])


def _run_page(run: TrainedRun) -> Iterator[str]:
    yield f"<header><h1>{text(run.name)}</h1>{_subtitle(run.run)}</header>"
    yield _error(run)
    yield _tiles(run)
    yield note([text(warning) for warning in run.warnings])
    yield section("Loss", _loss(run))
    yield section("Samples", _hidden([run]), _samples(run))
    yield _sheets(run)
    yield section("Checkpoints", _checkpoints(run))
    yield section("Training", facts(_training(run)))
    yield section("Dataset", _datasets(run))
    yield section("Time and cost", _phases(run), _attempts(run))
    yield section("Config", folded("The config it was trained with", f"<pre>{text(run.config)}</pre>"))


def _subtitle(run: RunView) -> str:
    when = run.created_at[:16].replace("T", " ")
    return f'<p class="soft">run {code(run.id)} on {text(run.target)}, {text(when)} UTC, {_status(run)}</p>'


def _status(run: RunView) -> str:
    return f'<span class="status {text(run.status)}">{text(run.status)}</span>'


def _error(run: TrainedRun) -> str:
    if not run.error:
        return ""
    hint = run.error.get("hint")
    said = [text(run.error.get("message")), *([f"What to do: {text(hint)}"] if hint else [])]
    return note([f"{text(run.name)}: {said[0]}", *said[1:]], is_error=True)


def _tiles(run: TrainedRun) -> str:
    return tiles(
        [
            ("step", f"{run.step or 0} of {run.steps}"),
            ("loss at the end, smoothed", _number(run.loss)),
            ("validation loss", _number(run.validation_loss)),
            ("seconds per step", _number(run.seconds_per_step)),
            ("GPU", text(run.gpu or "")),
            ("cost (estimate)", _money(run.cost)),
            ("took", _took(run.attempts)),
            ("checkpoints kept", str(len(run.checkpoints) or "")),
        ]
    )


def _loss(run: TrainedRun) -> str:
    lines = [Line("loss, smoothed", run.smooth, run.losses)]
    names = [f"<li>{swatch(0)} smoothed</li>", '<li><span class="soft">thin: every step</span></li>']
    if run.validation:
        lines.append(Line("validation loss", run.validation, number=1, is_dotted=True))
        names.append(f"<li>{swatch(1)} validation loss</li>")
    saves = [checkpoint.step for checkpoint in run.checkpoints]
    if saves:
        names.append('<li><span class="soft">▾ and dotted: a checkpoint that is kept</span></li>')
    drawn = chart(lines, last_step=run.steps, saves=saves)
    if not drawn:
        return '<p class="soft">There is no loss of more than one step.</p>'
    told = "" if run.validation else _LOSS_WORDS
    return f'<ul class="legend">{"".join(names)}</ul>{drawn}{told}'


_LOSS_WORDS = (
    '<p class="soft small">The loss of a diffusion model says little of its pictures: choose a checkpoint by the '
    "samples.</p>"
)


def _samples(run: TrainedRun) -> str:
    if not run.samples:
        return '<p class="soft">There are no samples.</p>'
    steps = sorted({sample.step for sample in run.samples})
    by_place = {(sample.step, sample.prompt): sample for sample in run.samples}
    rows = []
    for number in sorted({sample.prompt for sample in run.samples}):
        words = _prompt(run, number)
        rows.append(f'<tr class="prompt"><th colspan="{len(steps)}"><span>{text(words)}</span></th></tr>')
        cells = [f"<td>{picture(by_place.get((step, number)), words)}</td>" for step in steps]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<div class="scroll"><table class="shots"><tbody>\n{body}\n</tbody></table></div>'


def _prompt(run: TrainedRun, number: int) -> str:
    return run.prompts[number].text if number < len(run.prompts) else f"prompt {number + 1}"


def _hidden(runs: Iterable[TrainedRun]) -> str:
    most = max(run.steps_hidden for run in runs)
    told = f"Samples of {count(most, 'more step')} are on the training volume and not on this page."
    return f'<p class="soft small">{told}</p>' if most else ""


def _sheets(run: TrainedRun) -> str:
    shown = [shot for shot in run.sheets if shot.uri]
    return section(
        "Rendered with each checkpoint", *(f'<p class="sheet">{image(shot, shot.file)}</p>' for shot in shown)
    )


def _checkpoints(run: TrainedRun) -> str:
    rows = [
        (
            f"{each.step}{' (the last)' if each.is_final else ''}",
            text(bytes_in_words(each.size_bytes)),
            f'<code title="{text(each.sha256)}">{text(each.sha256[:12])}</code>',
            text(each.saved_at[:19].replace("T", " ")),
            "yes" if each.has_optimizer else "weights only",
            code(f"comfymodal runs fetch {run.run.id} --step {each.step}"),
        )
        for each in reversed(run.checkpoints)
    ]
    titles = ("step", "weights", "sha256", "saved (UTC)", "can be gone on from", "bring it here")
    places = ", ".join(code(path) for path in run.published)
    told = f"<p>Among the models: {places}</p>" if places else ""
    return told + (table(titles, rows, numbers=(1,)) or '<p class="soft">None is kept yet.</p>')


def _training(run: TrainedRun) -> list[tuple[str, str]]:
    known = run.training
    rank = "the whole model" if known["is_full_finetune"] else f"{known['rank']}, alpha {_plain(known['alpha'])}"
    batch = known["batch_size"] * known["gradient_accumulation"]
    return [
        ("base model", code(known["base_model"])),
        ("architecture", text(known["arch"])),
        ("trigger", code(known["trigger_word"]) if known["trigger_word"] else ""),
        ("rank", text(rank)),
        ("steps", f"{known['steps']}, {count(batch, 'picture')} each"),
        ("learning rate", f"{known['lr']:g}, {text(known['optimizer'])}"),
        ("precision", text(f"{known['dtype']}{', quantized' if known['is_quantized'] else ''}")),
        ("seed", "" if known["seed"] is None else str(known["seed"])),
        ("trainer", text(known["engine"])),
        ("folder", code(f"training:/{run.folder}")),
    ]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _datasets(run: TrainedRun) -> str:
    rows = [
        (
            code(each.path),
            "" if each.images is None else str(each.images),
            text(", ".join(map(str, each.resolutions))),
            str(each.repeats) if each.repeats != 1 else "",
            f'<code title="{text(each.sha256)}">{text(each.sha256[:12])}</code>' if each.sha256 else "",
        )
        for each in run.datasets
    ]
    return table(("folder", "pictures", "resolution", "repeats", "sha256"), rows, numbers=(1,))


def _phases(run: TrainedRun) -> str:
    rows = [
        (text(_PHASES.get(name, name)), text(seconds_in_words(seconds)))
        for name, seconds in sorted(run.phases.items(), key=lambda each: -each[1])
        if seconds >= 0.05
    ]
    return table(("phase of the last attempt", "time"), rows, numbers=(1,))


def _attempts(run: TrainedRun) -> str:
    rows = [
        (
            code(each.id),
            _status(each),
            text(each.created_at[:19].replace("T", " ")),
            text(seconds_in_words(each.seconds)) if each.seconds is not None else "",
            _money(each.cost),
        )
        for each in run.attempts
    ]
    price = f" at {_money(run.usd_per_hour)}/h for {text(run.gpu)}" if run.usd_per_hour else ""
    told = f'<p class="soft small">Costs are estimates{price}, prices of {text(run.prices_as_of)}.</p>' if price else ""
    return table(("run", "status", "began (UTC)", "took", "cost"), rows, numbers=(3, 4)) + told


def _sweep_page(report: TrainingPage) -> Iterator[str]:
    runs = report.runs
    yield f"<header><h1>{text(_common_name(runs))}: {len(runs)} variants</h1></header>"
    yield from (_error(run) for run in runs)
    yield section("Variants", _variants(report))
    yield section("Loss", _sweep_loss(report))
    yield section("Samples", _hidden(runs), *_sweep_samples(report))
    yield from (_sheets(run) for run in runs)
    warned = [f"{text(run.name)}: {text(warning)}" for run in runs for warning in run.warnings]
    yield section("Warnings", note(warned))
    configs = [folded(f"{run.name} ({run.run.id})", f"<pre>{text(run.config)}</pre>") for run in runs]
    yield section("Configs", *configs)


def _common_name(runs: Sequence[TrainedRun]) -> str:
    """What all names begin with, up to where the sweep's own part begins."""
    begin = runs[0].name.partition("--")[0]
    return begin if all(run.name.startswith(begin) for run in runs) else "Trainings compared"


def _variants(report: TrainingPage) -> str:
    shown = report.differing[:SETTINGS_SHOWN]
    rows = [
        (
            f"{swatch(number)} {text(run.name)}<br>{code(run.run.id)}",
            *(text(run.settings.get(key, "")) for key in shown),
            _status(run.run),
            f"{run.step or 0} of {run.steps}",
            _number(run.loss),
            _number(run.validation_loss),
            _number(run.seconds_per_step),
            _took(run.attempts),
            _money(run.cost),
        )
        for number, run in enumerate(report.runs)
    ]
    end = ("status", "step", "loss, smoothed", "validation loss", "s per step", "took", "cost")
    numbers = tuple(range(len(shown) + 2, len(shown) + 8))
    more = len(report.differing) - len(shown)
    told = (
        f'<p class="soft small">They differ in {count(more, "more setting")}; see the configs.</p>' if more > 0 else ""
    )
    costs = [run.cost for run in report.runs if run.cost is not None]
    total = f"<p>Together {_sum(costs)} (estimate).</p>" if len(costs) > 1 else ""
    return table(("variant", *shown, *end), rows, numbers) + told + total


def _sweep_loss(report: TrainingPage) -> str:
    lines = [Line(_label(run, report), run.smooth, number=number) for number, run in enumerate(report.runs)]
    last = max(run.steps for run in report.runs)
    drawn = chart(lines, last_step=last, title="Smoothed loss of each variant by step")
    if not drawn:
        return '<p class="soft">There is no loss of more than one step.</p>'
    names = "".join(f"<li>{swatch(line.number)} {text(line.name)}</li>" for line in lines if len(line.curve) > 1)
    held = [
        Line(_label(run, report), run.validation, number=number, is_dotted=True)
        for number, run in enumerate(report.runs)
    ]
    validation = chart(held, last_step=last, title="Validation loss of each variant by step")
    title = "<h3>Validation loss</h3>" if validation else _LOSS_WORDS
    return f'<ul class="legend">{names}</ul>{drawn}{title}{validation}'


def _label(run: TrainedRun, report: TrainingPage) -> str:
    """What tells the variant from the others; its name where a few settings do not."""
    leaves = [key.rpartition(".")[2] for key in report.differing]
    if not leaves or len(set(leaves)) < len(leaves) or len(leaves) > LABELS_MOST:
        return run.name
    return " ".join(f"{leaf}={run.settings[key]}" for leaf, key in zip(leaves, report.differing, strict=True))


def _sweep_samples(report: TrainingPage) -> Iterator[str]:
    steps = sorted({sample.step for run in report.runs for sample in run.samples})
    if not steps:
        yield '<p class="soft">There are no samples.</p>'
        return
    for template, found in _by_prompt(report.runs).items():
        texts = {_prompt(run, number) for run, number, _ in found}
        rows = [_variant_row(report, run, number, samples, steps) for run, number, samples in found]
        # The trigger is swept: each variant was told another text.
        title = texts.pop() if len(texts) == 1 else template
        body = "\n".join(rows)
        yield f'<h3>{text(title)}</h3><div class="scroll"><table class="shots"><tbody>\n{body}\n</tbody></table></div>'


_Found = tuple[TrainedRun, int, Mapping[int, SampleShot]]
"""A run, the number of the prompt in it, and its samples by step."""


def _by_prompt(runs: Iterable[TrainedRun]) -> dict[str, list[_Found]]:
    """The runs that have a prompt; by its text in the config, for its place may be another in each."""
    found: dict[str, list[_Found]] = {}
    for run in runs:
        for number in sorted({sample.prompt for sample in run.samples}):
            template = run.prompts[number].template if number < len(run.prompts) else f"prompt {number + 1}"
            samples = {sample.step: sample for sample in run.samples if sample.prompt == number}
            found.setdefault(template, []).append((run, number, samples))
    return found


def _variant_row(
    report: TrainingPage, run: TrainedRun, number: int, samples: Mapping[int, SampleShot], steps: Sequence[int]
) -> str:
    label, words = _label(run, report), _prompt(run, number)
    cells = "".join(f"<td>{picture(samples.get(step), f'{label}: {words}')}</td>" for step in steps)
    place = report.runs.index(run)
    return f'<tr><th class="variant" scope="row">{swatch(place)}<br>{text(label)}</th>{cells}</tr>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _money(usd: str | None) -> str:
    return "" if usd is None else text(money_in_words(usd))


def _sum(costs: Sequence[str]) -> str:
    from decimal import Decimal

    return _money(f"{sum(map(Decimal, costs)):f}")


def _took(attempts: Sequence[RunView]) -> str:
    seconds = [each.seconds for each in attempts if each.seconds is not None]
    return text(seconds_in_words(sum(seconds))) if seconds else ""


def _foot(report: TrainingPage) -> str:
    when = report.made_at[:16].replace("T", " ")
    return f"<footer>Made by comfymodal {text(__version__)}, {text(when)} UTC, from what the runs left.</footer>"
