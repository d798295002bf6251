"""A flame graph as SVG from the text of `perf script`: width is time, height is depth, the text of a box is in its tooltip."""
import collections, hashlib, re, sys
from html import escape

WIDTH, ROW, LEAST = 1200, 17, 0.4


def stacks(text):
    """Counts of stacks, outermost frame first, the thread's name below all."""
    found = collections.Counter()
    for sample in text.split("\n\n"):
        lines = sample.strip().splitlines()
        if len(lines) < 2:
            continue
        thread = re.match(r"\s*(.*?)\s+\d+(/\d+)?\s", lines[0] + " ")
        frames = [re.sub(r"^\s*[0-9a-f]+ | \([^()]*\)$|\+0x[0-9a-f]+(?= \()", "", line) for line in lines[1:]]
        frames = [short(re.sub(r"\+0x[0-9a-f]+$", "", f)) for f in frames]
        found[(thread[1] if thread else "?", *reversed(frames))] += 1
    return found


def short(frame):
    """Without the crate's name and the hash that Rust adds, cut to a line."""
    return re.sub(r"millrace::|::h[0-9a-f]{16}$", "", frame)[:160] or "[unknown]"


class Box:
    """A frame with the samples in it and in what it calls."""

    def __init__(self):
        self.samples, self.inner = 0, {}

    def add(self, frames, count):
        self.samples += count
        if frames:
            self.inner.setdefault(frames[0], Box()).add(frames[1:], count)

    def depth(self):
        return 1 + max((box.depth() for box in self.inner.values()), default=0)


def color(name):
    """Warm, and the same for the same name."""
    a, b = hashlib.sha256(name.encode()).digest()[:2]
    return f"rgb({215 + a % 40},{110 + b % 90},{60 + a % 40})"


def draw(box, name, x, y, scale, total, parts):
    """The box and what is above it; boxes too narrow to see are left out."""
    width = box.samples * scale
    if width < LEAST:
        return
    label = name if len(name) * 6.6 < width - 6 else name[:max(0, int((width - 6) / 6.6) - 1)]
    tip = f"{name}: {box.samples} samples, {100 * box.samples / total:.1f}%"
    parts.append(f'<g><title>{escape(tip)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{color(name)}"/>'
                 + (f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(label)}</text>' if len(label) > 2 else "") + "</g>")
    for inner, above in sorted(box.inner.items()):
        draw(above, inner, x, y - ROW, scale, total, parts)
        x += above.samples * scale


def svg(title, text):
    """The flame graph of what `perf script` printed."""
    root = Box()
    for frames, count in stacks(text).items():
        root.add(frames, count)
    if not root.samples:
        sys.exit("perf has taken no samples")
    height, parts = ROW * root.depth() + 50, []
    draw(root, f"all, {root.samples} samples", 0, height - ROW - 4, WIDTH / root.samples, root.samples, parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
            "<style>text { font: 11px monospace; fill: #111 } .title { font: 15px sans-serif }</style>\n"
            f'<rect width="100%" height="100%" fill="#fbf8f2"/>\n<text x="8" y="22" class="title">{escape(title)}</text>\n'
            + "\n".join(parts) + "\n</svg>\n")
