"""The picture: bars by scenario, llama.cpp's as long as 1, ours as long as the ratio. Plain SVG, for light and dark pages."""
import statistics
from html import escape

from report import LESS_IS_BETTER, number

WIDTH, LEFT, RIGHT = 860, 250, 210
BAR, GROUP, TOP = 13, 44, 54
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a }
.title { font-size: 15px; font-weight: 600 }
.ours { fill: #2f6fd0 } .theirs { fill: #a8b0ba } .line { stroke: #d0d7de } .whisker { stroke: #24292f }
@media (prefers-color-scheme: dark) {
 text { fill: #e6edf3 } .small { fill: #9198a1 }
 .ours { fill: #4c8dff } .theirs { fill: #6e7681 } .line { stroke: #3d444d } .whisker { stroke: #e6edf3 }
}"""


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def bar(x, y, width, kind):
    return f'<rect x="{x}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" rx="2" class="{kind}"/>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def unit(figure):
    """`output tok/s` is counted in `tok/s`, `TTFT p99 ms` in `ms`."""
    return figure.split()[-1]


def _group(comparison, y, scale):
    """The two bars of one comparison, from `y` on."""
    ratio = statistics.median(comparison.ratios)
    low, high = min(comparison.ratios), max(comparison.ratios)
    label = comparison.figure + (", less is better" if comparison.figure in LESS_IS_BETTER else "")
    end, middle = LEFT + max(ratio, high, 1) * scale + 8, y + BAR / 2
    ours = f"{number(statistics.median(comparison.ours))} {unit(comparison.figure)}, {ratio:.1f} times"
    return [
        text(LEFT - 10, y + 11, comparison.title, anchor="end"),
        text(LEFT - 10, y + 27, label, "small", "end"),
        bar(LEFT, y, ratio * scale, "ours"),
        line(LEFT + low * scale, middle, LEFT + high * scale, middle, "whisker"),
        text(end, y + 11, ours),
        bar(LEFT, y + BAR + 3, scale, "theirs"),
        text(LEFT + scale + 8, y + BAR + 14, f"{number(statistics.median(comparison.theirs))} {unit(comparison.figure)}", "small"),
    ]


def svg(title, about, comparisons):
    """The picture of those `comparisons` that have both sides; `about` is the small print, lines of it."""
    both = [c for c in comparisons if c.ratios]
    longest = max((max(c.ratios) for c in both), default=1)
    scale = (WIDTH - LEFT - RIGHT) / max(longest, 1)
    bottom = TOP + GROUP * len(both)
    height = bottom + 16 * (len(about) + 1) + 6
    parts = [text(LEFT, 22, title, "title"), bar(LEFT, 32, 12, "ours"), text(LEFT + 18, 43, "Millrace"),
             bar(LEFT + 90, 32, 12, "theirs"), text(LEFT + 108, 43, "llama.cpp's server = 1"),
             line(LEFT + scale, TOP, LEFT + scale, bottom - 8, "line")]
    for i, comparison in enumerate(both):
        parts += _group(comparison, TOP + 6 + i * GROUP, scale)
    parts += [text(16, bottom + 16 * (i + 1), words, "small") for i, words in enumerate(about)]
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n")
