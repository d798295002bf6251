"""What was measured: kept as JSON, compared, printed as a table in Markdown."""
import json, statistics

from load import GAP_P50, GAP_P99, OUTPUT, PROMPT, SCENARIOS, TTFT_P50, TTFT_P99

OURS, THEIRS = "millrace", "llama.cpp"
# Of these less is better; their ratio is turned over.
LESS_IS_BETTER = {GAP_P50, GAP_P99, TTFT_P50, TTFT_P99}
# What must be equal for runs to be compared, and told with them.
SAME = ("processor", "threads", "sampling", OURS, THEIRS)


class Results:
    """A file of runs: `{about, runs: [{model, scenario, round, server, options, load, figures}]}`."""

    def __init__(self, path, about):
        self.path, self.about, self.runs = path, about, []

    def append(self):
        """Takes over the runs that the file holds, if there is one. Raises `ValueError` if they are of something else."""
        if not self.path.exists():
            return
        old = json.loads(self.path.read_text())
        for key in SAME:
            if old["about"][key] != self.about[key]:
                raise ValueError(f"{self.path} has {key} {old['about'][key]!r}, and this is {self.about[key]!r}")
        self.runs = old["runs"]

    @classmethod
    def read(cls, path):
        data = json.loads(path.read_text())
        results = cls(path, data["about"])
        results.runs = data["runs"]
        return results

    def has(self, **which):
        return any(all(run[k] == v for k, v in which.items()) for run in self.runs)

    def add(self, run):
        self.runs.append(run)
        text = json.dumps({"about": self.about, "runs": self.runs}, indent=1)
        draft = self.path.with_suffix(".part")
        draft.write_text(text + "\n")
        draft.replace(self.path)

    def models(self):
        return list(dict.fromkeys(run["model"] for run in self.runs))

    def comparisons(self, model):
        """The main figures of each scenario that was run with `model`, in the order of `SCENARIOS`."""
        found = []
        for name, scenario in SCENARIOS.items():
            sides = {server: {run["round"]: run["figures"] for run in self.runs
                              if (run["model"], run["scenario"], run["server"]) == (model, name, server)}
                     for server in (OURS, THEIRS)}
            if sides[OURS]:
                found += [Comparison(scenario.title, figure, sides[OURS], sides[THEIRS]) for figure in scenario.figures]
        return found


class Comparison:
    """One figure of one scenario: our values, theirs, and the ratio in each round that has both (more than 1: we are better)."""

    def __init__(self, title, figure, ours, theirs):
        self.title, self.figure = title, figure
        self.ours = [f[figure] for f in ours.values() if figure in f]
        self.theirs = [f[figure] for f in theirs.values() if figure in f]
        pairs = [(ours[r][figure], theirs[r][figure]) for r in ours if r in theirs and figure in ours[r] and figure in theirs[r]]
        self.ratios = [t / o if figure in LESS_IS_BETTER else o / t for o, t in pairs]


def number(x):
    return f"{x:,.2f}" if x < 10 else f"{x:,.1f}" if x < 100 else f"{x:,.0f}"


def spread(values):
    """The median with least and most; a dash where nothing was measured."""
    if not values:
        return "-"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def about_text(results, model):
    """What the figures of `model` were measured on, in three lines."""
    runs = [run for run in results.runs if run["model"] == model]
    options = " ".join(next((run["options"] for run in runs if run["server"] == THEIRS and run["options"]), []))
    most = max(run["load"] for run in runs)
    about = results.about
    peer = f"; llama.cpp from {about[THEIRS]} {options}".rstrip() if about[THEIRS] else ""
    return [f"{about['processor']}, {about['threads']} threads, {about['sampling']} sampling.",
            f"Millrace {about[OURS]}{peer}.",
            f"Median (least-most) of the rounds; load average before a run at most {most:.1f}."]


def markdown(results):
    """A table a model."""
    parts = []
    for model in results.models():
        lines = [f"### {model}", "", *about_text(results, model), "", "| | | Millrace | llama.cpp | ratio | rounds |", "|---|---|---|---|---|---|"]
        for c in results.comparisons(model):
            lines.append(f"| {c.title} | {c.figure} | {spread(c.ours)} | {spread(c.theirs)} | {spread(c.ratios)} | {len(c.ratios) or len(c.ours)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def details(run):
    """One line of what a run brought."""
    figures = run["figures"]
    came = f"{figures['tokens']} of {figures['asked']} tokens"
    keys = [k for k in (OUTPUT, PROMPT, TTFT_P50, TTFT_P99, GAP_P50, GAP_P99) if k in figures]
    rest = ", ".join(f"{k} {number(figures[k])}" for k in keys)
    return f"{run['model']} {run['scenario']} round {run['round']} {run['server']:9} {came}, {rest}, {figures['peak RSS MB']:.0f} MB"
