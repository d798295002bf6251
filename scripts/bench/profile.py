#!/usr/bin/env python3
"""Draws a flame graph of Millrace under one scenario of the benchmark, with Linux's perf.

Stacks come from the line tables of a release build (`--call-graph dwarf`): no other build is needed.
"""
import argparse, pathlib, shutil, subprocess, sys, tempfile

import flame, load
from servers import Millrace, Running


def perf_or_advice():
    """perf's path; says what to install, or to allow, where it cannot be used."""
    perf = shutil.which("perf")
    if not perf:
        sys.exit("make profile needs perf: apt-get install linux-perf (Debian), linux-tools-generic (Ubuntu) or perf (Fedora)")
    tried = subprocess.run([perf, "record", "-e", "cpu-clock", "-o", "/dev/null", "true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if tried.returncode != 0:
        sys.exit(f"perf cannot record: sysctl kernel.perf_event_paranoid=1 (root) may help\n{tried.stdout}")
    return perf


def main():
    parser = argparse.ArgumentParser(prog="profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("target/release/millrace"))
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path(".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--scenario", choices=load.SCENARIOS, default="decode-16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6, help="the scenario is repeated for so long")
    parser.add_argument("--hertz", type=int, default=199, help="samples a second and thread")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".cache/profile.svg"))
    options = parser.parse_args()
    perf = perf_or_advice()
    running = Running(Millrace(options.bin, []), options.model, load.SCENARIOS[options.scenario], options.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "perf.data")
        try:
            load.warm(running.port)
            record = subprocess.Popen([perf, "record", "-q", "-e", "cpu-clock", "-F", str(options.hertz), "--call-graph", "dwarf,16384",
                                       "-p", str(running.process.pid), "-o", data, "sleep", str(options.seconds)])
            for round_ in range(1000):
                if record.poll() is not None:
                    break
                load.run(running.port, options.scenario, round_, "random")
            record.wait()
        finally:
            running.stop()
        print("unwinding the stacks", flush=True)
        text = subprocess.run([perf, "script", "--no-inline", "-i", data], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(flame.svg(f"{options.scenario}, {options.model.name}, {options.threads} threads", text))
    print(options.out)


if __name__ == "__main__":
    main()
