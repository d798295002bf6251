"""How `expected.json` is laid out, and the table in tests/models/README.md."""
import json

BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def rounded(value):
    """Measured differences to two digits: more would change from run to run."""
    if isinstance(value, float):
        return float(f"{value:.2g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def as_json(expected):
    """One line for each field, prompt and row, so that a change is seen where it is."""
    lines = [f"{json.dumps(key)}: {field_json(key, value)}" for key, value in expected.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def field_json(key, value):
    if key == "prompts":
        return "[\n" + ",\n".join(prompt_json(prompt) for prompt in value) + "\n]"
    if key in ("trust", "llama_cpp", "llama_cpp_difference"):
        value = rounded(value)
    if isinstance(value, dict) and "prompts" in value:
        return "{" + ", ".join(f"{json.dumps(inner)}: {field_json(inner, item)}" for inner, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def prompt_json(prompt):
    parts = []
    for key, value in prompt.items():
        if key in ("rows", "greedy"):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            parts.append(f' "{key}": [\n  {rows}\n ]')
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def line(expected):
    trust, theirs = rounded(expected["trust"]), rounded(expected.get("llama_cpp", {}))
    said = f"{expected['model']}: seed {expected['seed']}, llama.cpp {theirs}, trust {trust}"
    if "original_context" in expected:
        said += f", original context {expected['original_context']['llama_cpp_difference']:.2g}"
    return said


def write_table(out, names):
    """Renews the table between the two marks of the README."""
    readme = out / "README.md"
    if not readme.exists():
        return
    rows = ["| folder | class | float32 to float64 | llama.cpp: largest | median | to the folder | least mistake |",
            "|---|---|---|---|---|---|---|"]
    for name in names:
        path = out / name / "expected.json"
        if not path.exists():
            continue
        expected = json.loads(path.read_text())
        trust, theirs = expected["trust"], expected.get("llama_cpp")
        mistakes = trust["mistakes"] | {"order of the prompt": trust["order_difference"]}
        least = min(mistakes, key=mistakes.get)
        cells = " | | " if not theirs else (f"{theirs['difference']:.1e} | {theirs['typical_difference']:.1e} | "
                                            f"{theirs.get('difference_to_folder', '')}")
        rows.append(f"| `{name}` | {expected['architecture']} | {trust['float64_difference']:.1e} | {cells} | "
                    f"{mistakes[least]:.2g}: {least} |")
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + "\n" + "\n".join(rows) + "\n" + END + after)
