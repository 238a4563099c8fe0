"""The self-written logs, and what the tests ask of an observation."""

from pathlib import Path

from kvplan.runtime.log import read_log

FOLDER = Path(__file__).parents[1] / "data" / "logs"
NAMES = sorted(path.name for path in FOLDER.glob("*.log"))


def lines_of(name):
    return (FOLDER / name).read_text(encoding="utf-8").splitlines(keepends=True)


def read_one(name):
    (observation,) = read_log(FOLDER / name)
    return observation


def values(observation, name):
    return [figure.value for figure in observation.figures.get(name, ())]


def by_rank(observation, name):
    return {figure.rank: figure.value for figure in observation.figures[name]}


def printed(observation):
    """All figures without the lines that they stand in."""
    return {
        name: [(figure.value, figure.unit, figure.half_step, figure.rank) for figure in figures]
        for name, figures in observation.figures.items()
    }
