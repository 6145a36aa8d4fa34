"""The command line: `strop VERB ... a.b.c=value`. Verbs have few flags; settings are keys.

Exit codes: 0 done, 1 failed while running, 2 a mistake in the command, recipe or data, 130 stopped.
Each verb imports what it needs when it runs, so that `--help` waits for nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from strop.recipes.display import Display
    from strop.recipes.run import RunResult
    from strop.recipes.settings import Sampling

app = typer.Typer(
    name="strop",
    help="Preference and reward training for language models.\n\n"
    "Begin with: strop quickstart. Your own data: strop run dpo model=MODEL data=pairs.jsonl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="a model folder or hub name")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="settings, as objective.beta=0.1")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Show = Annotated[str, typer.Option("--display", help="auto, live, plain, json or quiet")]


def main() -> None:
    """The console script."""
    try:
        _verb(sys.argv[1:2])
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, ModuleNotFoundError, OSError) as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    """Print an error as one block and leave with exit code 2."""
    if os.environ.get("STROP_DEBUG") == "1":
        traceback.print_exception(error)
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        extra = "judge" if error.name in ("httpx2", "tenacity") else "train"
        text = f"{error.name} is not installed; pip install 'strop[{extra}]'"
    typer.echo("error: " + text.replace("\n", "\n       "), err=True)
    sys.exit(2)


def _verb(first: list[str]) -> None:
    """Refuse a recipe's name where a verb should stand, and say how it is run."""
    from strop.recipes.sources import builtin_names

    verbs = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for name in (n for n in first if n in builtin_names() and n not in {*verbs, "quickstart"}):
        raise ValueError(f"{name} is a recipe, not a verb; run it as strop run {name} key=value ...")


def _version(asked: bool) -> None:
    if asked:
        from strop import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before the verb."""


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="a built-in recipe, a YAML file, or a run directory to resume")
    ],
    settings: Settings = None,
    display: Show = "auto",
) -> None:
    """Run a recipe, or go on with a run directory.

    More YAML files among the settings are laid over the recipe, in order.
    """
    files, pairs = _parted(settings)
    _start([recipe, *files] if files else recipe, pairs, display)


@app.command()
def quickstart(settings: Settings = None, display: Show = "auto") -> None:
    """Train a tiny assistant from nothing in minutes.

    SFT, then DPO, then GRPO in the embedded world, evaluated after each.
    """
    _start("quickstart", settings or [], display)


@app.command("eval")
def evaluate(
    model: Model,
    settings: Settings = None,
    display: Show = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a model's answers to held-out prompts, or ask a reward model about pairs.

    As in: strop eval MODEL data=test.jsonl rewards=number baseline=OTHER
    """
    base = {"name": "eval", "kind": "evaluate", "model": model.removeprefix("model=")}
    result = _result(base, settings or [], "quiet" if as_json else display)
    if as_json:
        _print_json({"path": str(result.path), "state": result.state, "metrics": result.metrics})
    raise typer.Exit(result.exit_code)


@app.command()
def validate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a built-in recipe or a YAML file")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and say what it would do.

    Resolved settings, rows kept and dropped, lengths, steps and memory. Loads no weights.
    """
    from strop.recipes import config
    from strop.recipes import validate as dry
    from strop.recipes.plain import to_plain
    from strop.recipes.preflight import check_inputs

    files, pairs = _parted(settings)
    ref = [recipe, *files]
    reading = config.read_recipe(ref, pairs)
    found, left_out = reading.recipe, reading.left_out
    check_inputs(found)
    stages = dry.validate(found)
    changed = config.difference(ref, pairs)
    if as_json:
        plain = {"recipe": to_plain(found), "difference": changed, "left_out": left_out, "stages": stages}
        return _print_json(plain)
    typer.echo(config.dump(found))
    for line in (*(f"changed  {line}" for line in changed), *(f"left out {line}" for line in left_out)):
        typer.echo(line)
    typer.echo(dry.as_text(stages), nl=False)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a built-in recipe or a YAML file")],
    settings: Settings = None,
    gpu: Annotated[list[str] | None, typer.Option(metavar="GB", help="cards to fit: 24, or 4x24; several")] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="run two steps of each stage here")] = True,
    as_json: AsJson = False,
) -> None:
    """Estimate each stage's memory and time, and say what fits where.

    From the model's config alone, calibrated by a measured step of random weights on this device.
    """
    from strop.recipes.planning import command, text
    from strop.recipes.planning.plan import plan as planned

    files, pairs = _parted(settings)
    cards, pairs = command.cards_of(gpu or [], pairs)
    found = planned(command.asked([recipe, *files], pairs), cards, measuring=measure)
    if as_json:
        return _print_json(text.to_json(found))
    typer.echo(text.as_text(found), nl=False)


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a data file or folder")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="model=, rows=, max_length=, or a data setting")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model would be trained on.

    Counts and lengths; with model=MODEL also the rendered template, the tokens and the loss mask.
    """
    from strop.data.inspect import as_text
    from strop.data.inspect import inspect as look
    from strop.recipes.inspecting import read

    dataset, chat, options = read(data, settings or [])
    report = look(dataset, chat, max_length=options.max_length, num_rows=options.rows)
    if as_json:
        return _print_json(report)
    typer.echo(as_text(report, width=shutil.get_terminal_size().columns), nl=False)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """Compare the built-in methods.

    What each takes, what it holds in memory, how many answers it samples, and its compute.
    """
    from strop.recipes.methods import as_text
    from strop.recipes.methods import methods as built_in

    if as_json:
        return _print_json([method.to_json() for method in built_in()])
    typer.echo(as_text(built_in()), nl=False)


@app.command()
def advise(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a data file or folder")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="a data setting, as columns.prompt=question")
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(help="what can tell right from wrong: number, exact, ..., or file.py:function")
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="URL", help="a model that can compare answers")] = None,
    model: Annotated[str | None, typer.Option(help="the model to train, a folder or hub name")] = None,
    parameters: Annotated[str | None, typer.Option(help="its size where no folder tells it, as 7B")] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GB", help="what the GPU has")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which method to begin with on some data.

    By the rows' kind, number and labels, and by what else there is; with its command and the runner-up.
    """
    from strop.recipes import advise as adviser
    from strop.recipes.inspecting import read_data

    means = adviser.means_of(verifier, judge, model, parameters, gpu_memory)
    dataset = read_data(data, settings or [])
    seen, found = adviser.advise(dataset, data, means, settings or [])
    if as_json:
        return _print_json(adviser.to_json(seen, found))
    typer.echo(adviser.as_text(seen, found, dataset.shape), nl=False)


@app.command()
def sample(
    model: Model,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="prompts; among them key=value of sampling")],
    num: Annotated[int, typer.Option("-n", min=1, help="answers a prompt")] = 1,
    seed: Annotated[int, typer.Option(help="of the random numbers")] = 0,
    as_json: AsJson = False,
) -> None:
    """Answer prompts with a model.

    As in: strop sample MODEL "Compute 39+75." temperature=0
    """
    sampling, texts = _sampling(prompts)
    if not texts:
        raise ValueError('no prompt given; as strop sample MODEL "Compute 39+75."')
    from strop.recipes.talk import sample_texts

    answers = sample_texts(model.removeprefix("model="), texts, sampling, seed, num_samples=num)
    if as_json:
        return _print_json([{"prompt": p, "answers": a} for p, a in zip(texts, answers, strict=True)])
    for prompt, found in zip(texts, answers, strict=True):
        if len(texts) > 1:
            typer.echo(f"> {prompt}")
        for answer in found:
            typer.echo(answer)


@app.command()
def chat(
    model: Model,
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="as temperature=0.7")] = None,
    seed: Annotated[int, typer.Option(help="of the random numbers")] = 0,
) -> None:
    """Talk with a model.

    An empty line or Ctrl-D ends it.
    """
    sampling, rest = _sampling(settings or [])
    if rest:
        raise ValueError(f"{rest[0]}: a setting is key=value, as temperature=0.7")
    from strop.recipes.talk import chat_with

    def ask() -> str | None:
        try:
            return input("> ").strip() or None
        except EOFError:
            return None

    chat_with(model.removeprefix("model="), sampling, seed, ask=ask, say=typer.echo)


@app.command()
def verify(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="a reward: math, code, number, exact, choice, ...")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="rows with a completion and what it is checked by")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="the reward's settings, as column=gold")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a completion")] = False,
) -> None:
    """Run a reward on the rows of a file.

    One line a completion, in order: score, what was read as the answer, why. Unreadable rows score null.
    """
    from strop.recipes import verifying

    reward = verifying.reward_of(kind, settings or [])
    tally = verifying.Tally()
    for judged in verifying.verify_file(file, reward):
        tally.add(judged.verdict)
        typer.echo(verifying.as_json(judged) if as_json else verifying.as_line(tally.num, judged))
    typer.echo(str(tally), err=as_json)


@app.command("lint-tasks")
def lint_tasks(
    file: Annotated[str, typer.Argument(metavar="FILE", help="rows with tests of programs")],
    timeout_s: Annotated[float, typer.Option(help="seconds of the processor that a test may take")] = 8.0,
    unsafe_exec: Annotated[bool, typer.Option("--unsafe-exec", help="run programs even without isolation")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a problem")] = False,
) -> None:
    """Find programming tasks that a cheat would pass.

    Tries constants, echoes and visible answers, which must fail, and each row's reference, which must pass.
    Exit code 1 where something is wrong.
    """
    from strop.rewards.code.isolation import Wanted, sandbox_of
    from strop.rewards.code.lint import lint_file
    from strop.rewards.code.worker import Limits

    found = 0
    sandbox = sandbox_of(Wanted(unsafe=unsafe_exec))
    for problem in lint_file(file, sandbox, Limits(timeout_s=timeout_s, memory_mb=1024)):
        found += 1
        typer.echo(json.dumps(problem.to_json()) if as_json else f"{problem.row}: {problem.problem}")
    typer.echo(f"{found} problems" if found else "no problems found", err=as_json)
    raise typer.Exit(1 if found else 0)


@app.command()
def judge(
    file: Annotated[str, typer.Argument(metavar="FILE", help="two answers a row, and which is better")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="the judge, as backend.url=... backend.model=...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a judge on rows whose better answer is known.

    Accuracy, kappa, calibration, position bias, flips, by length; each with n and a 95 % interval.
    As in: strop judge gold.jsonl backend.url=http://localhost:8000/v1 backend.model=my-judge
    """
    from strop.recipes import judging

    quality = judging.judge_file(file, settings or [])
    if as_json:
        _print_json(quality.to_json())
    else:
        typer.echo(judging.as_text(quality))


@app.command()
def monitor(
    run_dir: Annotated[Path | None, typer.Argument(metavar="RUN", help="a run directory")] = None,
    before: Annotated[str | None, typer.Option(metavar="FILE", help="samples of the starting policy")] = None,
    after: Annotated[str | None, typer.Option(metavar="FILE", help="samples of the trained one")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run's monitor saw, or compare two files of samples.

    Phrases taken up, length, repetition, and the held-out reward beside the trained one. Exit code 3 on an alarm.
    """
    from strop.recipes import observing

    if (run_dir is None) == (before is None) or (before is None) != (after is None):
        raise ValueError("name a run, as strop monitor RUN, or two files, as strop monitor --before A --after B")
    seen = observing.of_run(run_dir) if run_dir else [observing.of_files(before or "", after or "")]
    if as_json:
        _print_json([s.to_json() for s in seen])
    else:
        typer.echo(observing.as_text(seen))
    raise typer.Exit(observing.exit_code(seen))


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="a run directory, or 2 to 8 to compare")],
    to: Annotated[Path | None, typer.Option("--to", help="the file to write; beside the run when left out")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's report again, or one page that compares 2 to 8 runs.

    One HTML file, whatever state the runs are in.
    """
    from strop.report import told, write_comparison, write_report

    path = write_report(run_dirs[0], to) if len(run_dirs) == 1 else write_comparison(run_dirs, to)
    if as_json:
        _print_json(told(run_dirs, path))
    else:
        typer.echo(path)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")],
    to: Annotated[Path | None, typer.Option("--to", help="the folder to make; the run's name when left out")] = None,
    stage: Annotated[str | None, typer.Option(help="the stage whose model; the last one when left out")] = None,
) -> None:
    """Copy a run's model to a folder, checked."""
    from strop.recipes.exporting import export_model

    typer.echo(export_model(run_dir, to, stage))


@app.command()
def ship(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="as against=OTHER margin=0.02 data=test.jsonl")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="the folder to make; the run's name when left out")] = None,
    stage: Annotated[str | None, typer.Option(help="the stage whose model; the last one when left out")] = None,
    force: Annotated[bool, typer.Option("--force", help="export even where the gate does not pass")] = False,
    gate_only: Annotated[bool, typer.Option("--gate-only", help="judge, and export nothing")] = False,
    display: Show = "auto",
    as_json: AsJson = False,
) -> None:
    """Judge a run's model against where it began, and export it.

    Exit code 3 where it may have got worse, or an alarm is open; then nothing is exported.
    """
    from strop.recipes.shipping import ship as shipping

    wish = shipping.Wish(to, stage, force, gate_only, shlex.join(["strop", *sys.argv[1:]]))
    shown = _display("quiet" if as_json else display)
    found = shipping.ship(run_dir, settings or [], wish, lambda: shown)
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo("\n".join(found.lines()))
    raise typer.Exit(found.exit_code)


@app.command("ls")
def list_(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="the folder of runs")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List built-in recipes, and runs with their state."""
    from strop.recipes.listing import recipes
    from strop.recipes.rundir import states

    built_in, found = recipes(), states(runs)
    if as_json:
        listed = [_state_json(s) for s in found]
        return _print_json({"recipes": built_in, "runs": listed})
    width = max(map(len, built_in))
    typer.echo("recipes")
    for name, description in built_in.items():
        typer.echo(f"  {name:<{width}} {description}")
    typer.echo(f"runs in {runs}" if found else f"no runs in {runs}")
    for s in found:
        at = f"{s.stage or ''} {s.step}/{s.steps}" if s.steps else s.stage or ""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.updated))
        typer.echo(f"  {s.name:<40} {s.state:<12} {at:<20} {when}".rstrip())


@app.command("cp")
def copy(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a built-in recipe, a YAML file or a run directory")],
    to: Annotated[Path | None, typer.Argument(metavar="DEST", help="RECIPE.yaml here when left out")] = None,
) -> None:
    """Copy a recipe's YAML to change it."""
    from strop.recipes.listing import text_of

    name, text = text_of(recipe)
    target = to or Path(Path(name).name)
    target = target / Path(name).name if target.is_dir() else target
    if target.exists():
        raise ValueError(f"{target} exists; name another file, as strop cp {recipe} mine.yaml")
    target.write_text(text, "utf-8")
    typer.echo(target)


@app.command()
def doctor(
    full: Annotated[bool, typer.Option("--full", help="also import torch and say what it sees")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine and installation have.

    Exit code 1 where something is wrong.
    """
    from strop.recipes.doctor import as_text, examine

    facts = examine(full=full)
    if as_json:
        _print_json(facts)
    else:
        typer.echo(as_text(facts), nl=False)
    raise typer.Exit(1 if facts["problems"] else 0)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from strop.recipes.jsonschema import json_schema

    _print_json(json_schema())


def _start(ref: Any, pairs: list[str], display: str) -> NoReturn:
    raise typer.Exit(_result(ref, pairs, display).exit_code)


def _result(ref: Any, pairs: list[str], display: str) -> RunResult:
    shown = _display(display)
    from strop.recipes.run import start

    command = shlex.join(["strop", *sys.argv[1:]])
    return start(ref, pairs, display=shown, command=command)


def _display(kind: str) -> Display:
    from strop.recipes.display import KINDS, make

    if kind not in KINDS:
        raise ValueError(f"--display {kind}: expected one of {', '.join(KINDS)}")
    return make(kind)


def _parted(settings: list[str] | None) -> tuple[list[str], list[str]]:
    """Recipe files and `key=value` pairs among the arguments."""
    given = settings or []
    files = [text for text in given if "=" not in text and text.endswith((".yaml", ".yml"))]
    return files, [text for text in given if text not in files]


def _sampling(arguments: list[str]) -> tuple[Sampling, list[str]]:
    """Sampling settings among arguments, and the rest."""
    from strop.recipes.inspecting import split_sampling

    return split_sampling(arguments)


def _state_json(state: Any) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(state), "path": str(state.path)}


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


if __name__ == "__main__":
    main()
