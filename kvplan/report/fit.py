"""A fit as a page: the answer in one line, the line to paste, the account behind it, and what would make it fit."""

from dataclasses import replace

from kvplan.core.engines.deployment import Switches
from kvplan.core.fit import Change, Fit
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.text import printable
from kvplan.core.units import format_bytes, rounded_down
from kvplan.core.weights import active_parameters, num_parameters
from kvplan.report.engine import engine_name, engine_tables
from kvplan.report.estimate import model_title, source_line
from kvplan.report.page import LINE_LENGTH, Line, Page, Table, plural

_CODE_LENGTH = LINE_LENGTH - 6
_SETTINGS = "# kvplan.yaml:"
"""Where a line to paste holds the content of a file of settings."""


def fit_page(fit: Fit, command: str | None, said: tuple[str, ...] = ()) -> Page:
    """The answer of `kvplan fit`; `command` starts the engine so, `said` are the changes in the engine's own words."""
    model = fit.model
    title = model_title(model, num_parameters(model), active_parameters(model))
    facts = (title, source_line(model, max_length=LINE_LENGTH), settings_line(fit.serving))
    lines = [Line(_sentence(fit.reason), "plain"), *_sure(fit), *_share(fit), *_curve(fit)]
    lines += [Line(_sentence(printable(note, max_length=400)), "faint") for note in fit.notes]
    return Page(
        title=headline(fit),
        lines=(*lines, *(Line(text, "faint") for text in facts)),
        code=continued(command) if command is not None and fit.fits else (),
        tables=(*_changes(fit, said), *engine_tables(fit.serving, fit.boot.accounts, fit.boot.pool)),
    )


def serve_check_page(
    fit: Fit, unread: tuple[str, ...], longest: int | None, said: tuple[str, ...], refusal: str | None = None
) -> Page:
    """The answer of `kvplan serve-check`; `refusal` says why the engine does not even look at the memory."""
    page = fit_page(fit, None, said)
    verdict = "starts" if fit.fits and refusal is None else "does not start"
    number = fit.concurrency if fit.fits else fit.want.concurrency or 1
    asked = _requests(number, fit.max_model_len)
    if fit.want.longest and not fit.fits:
        asked = "a request of any length" if number == 1 else f"{plural(number, 'request')} of any length"
    lines = [] if refusal is None else [Line(_sentence(printable(refusal, max_length=400)), "bad")]
    lines += _longest(fit, longest)
    if not fit.is_certain and refusal is None:
        lines.append(Line("Whether it starts is within the spread of the account: the other answer is possible."))
    lines += _left_out(unread)
    return replace(page, title=f"{verdict} {_place(fit)}, for {asked}", lines=(*lines, *page.lines))


def refusal_page(
    model: ModelSpec | None, gpu: Gpu | None, unread: tuple[str, ...], refusal: str, hint: str | None
) -> Page:
    """The same where the engine refuses the flags as they stand, so that no account of the memory is made."""
    where = "" if gpu is None else f" on {printable(gpu.name)}"
    lines = [Line(_sentence(printable(refusal, max_length=400)), "bad")]
    lines += [] if hint is None else [Line(f"To do: {printable(hint, max_length=400)}.")]
    lines += _left_out(unread)
    if model is not None:
        title = model_title(model, num_parameters(model), active_parameters(model))
        lines += [Line(title, "faint"), Line(source_line(model, max_length=LINE_LENGTH), "faint")]
    return Page(title=f"does not start{where}: the engine refuses the flags", lines=tuple(lines))


def _longest(fit: Fit, longest: int | None) -> list[Line]:
    """What the settings would hold, where that is not what was asked for."""
    limit, unified = fit.max_model_len, fit.serving.switches.kv_unified and (fit.want.concurrency or 1) > 1
    if longest is None or longest == limit:
        return []
    if not fit.fits:
        return [Line(f"The longest request with which it starts: {longest:,} tokens.")]
    shared = [Line(f"They share the context: one request may have all {fit.serving.seq_len:,} tokens.")]
    limit = fit.serving.seq_len if unified else limit
    more = [Line(f"Without a limit of {limit:,} tokens, a request could have {longest:,}.")] if longest > limit else []
    return [*(shared if unified else []), *more]


def _left_out(unread: tuple[str, ...]) -> list[Line]:
    return [Line(f"Not understood, and left out: `{printable(flag)}`.", "bad") for flag in unread]


def _sentence(text: str) -> str:
    """With a capital, but for names such as vLLM and sglang."""
    first = text.partition(" ")[0]
    named = first != first.lower() or first in ("vllm", "sglang", "trtllm", "llamacpp")
    return f"{text}." if named else f"{text[:1].upper()}{text[1:]}."


def headline(fit: Fit) -> str:
    """`fits: 9 requests of 40,960 tokens at once on one H100-SXM5-80GB`."""
    number = fit.concurrency if fit.fits else fit.want.concurrency or 1
    verdict = "fits" if fit.fits else "does not fit"
    return f"{verdict}: {_requests(number, fit.max_model_len)} {_place(fit)}"


def _requests(number: int, length: int) -> str:
    return f"{plural(number, 'request')} of {plural(length, 'token')}{' at once' if number > 1 else ''}"


def _place(fit: Fit) -> str:
    serving = fit.serving
    pool = "" if fit.kv_memory_bytes is None else f"in a pool of {format_bytes(fit.kv_memory_bytes)}"
    if pool and not fit.boot.accounts:
        return pool
    where = f"on {place(serving)}"
    if serving.dp > 1:
        which = "ranks of attention" if serving.switches.attention_dp else "replicas"
        where = f"on each of {serving.dp} {which}, {place(serving)} in all"
    return f"{where} {pool}".rstrip()


def place(serving: Serving) -> str:
    """`one H100-SXM5-80GB`, `16 × L4 (tp 8, pp 2)`."""
    if serving.gpu is None:
        return "a GPU that is not named"
    name = printable(serving.gpu.name)
    if serving.num_gpus == 1:
        return f"one {name}"
    degrees = [f"{key} {getattr(serving, key)}" for key in ("tp", "pp", "dp", "pcp") if getattr(serving, key) > 1]
    return f"{serving.num_gpus} × {name} ({', '.join(degrees)})"


def settings_line(serving: Serving) -> str:
    """Engine, formats and what was set beyond its defaults."""
    quant = f" as {printable(serving.quant.method)}" if serving.quant else ""
    cache = serving.kv_dtype.name
    if serving.value_dtype != serving.kv_dtype:
        cache += f"/{serving.value_dtype.name}"
    switches = [
        f"{name} {_value(getattr(serving.switches, name))}"
        for name in Switches.__dataclass_fields__
        if name in serving.switches.given
    ]
    words = (f"engine {engine_name(serving)}", f"weights {serving.dtype.name}{quant}", f"KV cache {cache}", *switches)
    return ", ".join(words)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return printable(" ".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _sure(fit: Fit) -> list[Line]:
    """What the spread of the account does to the answer."""
    if not fit.boot.accounts:
        return []
    if fit.sure_max_model_len is not None and fit.sure_max_model_len < fit.max_model_len:
        return [Line(f"Even at the low end of the account's spread: requests of {fit.sure_max_model_len:,} tokens.")]
    low, high = fit.concurrency_range
    if not fit.boot.certain and low and not fit.want.hold_limit:  # where a command is judged, its page says so
        return [Line("At the far end of the spread of what lies outside the share it does not start.", "bad")]
    if not fit.boot.starts and not fit.boot.certain and not fit.want.hold_limit:
        return [Line("At the high end of the account's spread it starts.")]
    if fit.boot.starts and not low:
        return [Line("At the low end of the account's spread it does not start.", "bad")]
    if fit.boot.starts and (round(low, 2), round(high, 2)) != (round(fit.max_concurrency, 2),) * 2:
        return [
            Line(f"Within the account's spread, the cache holds {rounded_down(low)} to {rounded_down(high)} of them.")
        ]
    return []


def _share(fit: Fit) -> list[Line]:
    share = fit.share
    if share is None:
        return []
    which = "one such request" if (fit.want.concurrency or 1) == 1 else f"{fit.want.concurrency:,} such requests"
    least = f"{share.least:.2f} would do for {which}" if share.least is not None else f"none is enough for {which}"
    return [Line(f"Share of the GPU: {share.used:.4g} here; {least}; up to {share.safe:.2f} is safe.")]


def _curve(fit: Fit) -> list[Line]:
    """Requests at once by length, the powers of two that tell something."""
    shown = [point for point in fit.curve if point.concurrency and _is_telling(point.max_model_len, fit.max_model_len)]
    words = [f"{point.concurrency:,} × {point.max_model_len:,}" for point in shown[-10:]]
    varies = len({point.concurrency for point in shown}) > 1
    return [Line(f"Requests at once by length: {', '.join(words)}.")] if varies else []


def _is_telling(length: int, answer: int) -> bool:
    return length >= 1024 and (length & (length - 1) == 0 or length == answer)


def _changes(fit: Fit, said: tuple[str, ...]) -> list[Table]:
    if not fit.changes:
        return []
    words = said or tuple(described(change) for change in fit.changes)
    rows = tuple(
        (text.partition(_SETTINGS)[0].rstrip(), f"{change.concurrency:,} × {change.max_model_len:,}", change.cost)
        for change, text in zip(fit.changes, words, strict=True)
    )
    title = "What would fit, the cheapest first" if not fit.fits else "Fewer GPUs"
    header = ("change", "requests × tokens", "at the cost of")
    return [Table(title=title, header=header, align="lrl", rows=rows, after=_files(fit, words))]


def _files(fit: Fit, words: tuple[str, ...]) -> tuple[Line, ...]:
    """What stands in a file of settings, which a cell has no room for."""
    told = [
        (change.cost, text.partition(_SETTINGS)[2].strip()) for change, text in zip(fit.changes, words, strict=True)
    ]
    lines = [Line(f"kvplan.yaml for {cost}: {content}") for cost, content in told if content]
    return (*lines, Line("Put it into that file, or into the one that you have.", "faint")) if lines else ()


def described(change: Change) -> str:
    """A change in kvplan's own words: `kv_dtype fp8`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in change.options.items())


def continued(command: str) -> tuple[str, ...]:
    """A command over several lines, each but the last with the shell's `\\`; broken before flags only."""
    lines: list[str] = []
    for whole in command.splitlines():
        if whole.startswith("#"):
            lines.append(whole)
            continue
        parts = whole.split(" --")
        line = parts[0]
        for part in parts[1:]:
            if len(line) + len(part) + 3 > _CODE_LENGTH:
                lines.append(f"{line} \\")
                line = f"    --{part}"
            else:
                line += f" --{part}"
        lines.append(line)
    return tuple(lines)
