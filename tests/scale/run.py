#!/usr/bin/env python3
"""Several servers behind the proxies and beside the tools of config/, each with the file that users get, as it is.

Those files name fixed ports of loopback, and `millrace` where containers talk to each other: so all of this runs in a
network of its own (Linux), where nothing else listens. Prints what it measured; exits non-zero if anything failed.
"""
import argparse, os, pathlib, shutil, subprocess, sys, tempfile, unittest

HERE = pathlib.Path(__file__).resolve().parent
INSIDE = "SCALE_TEST_INSIDE"
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx", "redis-server": "redis-server", "promtool": "prometheus", "openssl": "openssl",
            "systemd-analyze": "systemd"}


def install_tools():
    """The tools of Debian that are missing, and a word where they cannot be had."""
    os.environ["PATH"] += ":/usr/sbin"
    missing = sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool)})
    if missing:
        subprocess.run([HERE.parents[1] / "scripts" / "install-debian.sh", *missing])
    still = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if still:
        sys.exit(f"the tests need {', '.join(still)}: install them")


def network_of_its_own(python):
    """Starts this program again in new network and mount namespaces: as root, or as root of a namespace of users."""
    namespaces = ["unshare", "--net", "--mount"] + ([] if os.getuid() == 0 else ["--map-root-user"])
    if subprocess.run([*namespaces, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        print("no network namespaces here (unshare --net): the ports that config/ names must be free", flush=True)
        namespaces = []
    os.environ[INSIDE] = "own" if namespaces else "shared"
    command = [*namespaces, python, *sys.argv]
    os.execvp(command[0], command)


def prepare_network(scratch):
    """Loopback is up, and `millrace` is this machine."""
    import fcntl, socket, struct
    if os.environ[INSIDE] == "shared":
        try:
            socket.gethostbyname("millrace")
        except OSError:
            with open("/etc/hosts", "a") as hosts:
                hosts.write("127.0.0.1 millrace prometheus\n")
        return
    up, set_flags = 1, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, set_flags, struct.pack("16sh14x", b"lo", up))
    hosts = pathlib.Path(scratch, "hosts")
    hosts.write_text("127.0.0.1 localhost millrace prometheus\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="the binary, with the features fake-model and otel")
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="kept between runs")
    parser.add_argument("tests", nargs="*", help="names as unittest has them: test_haproxy, test_haproxy.Kill, ...")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        install_tools()
        sys.path.insert(0, str(HERE.parent / "sdk"))
        import install
        cache = options.cache / "sdk"
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["SCALE_TEST_LEGACY_PYTHON"] = str(install.python(cache.resolve(), "legacy"))
        network_of_its_own(install.python(cache.resolve(), "scale"))
    with tempfile.TemporaryDirectory() as scratch:
        prepare_network(scratch)
        os.environ["SCALE_TEST_BIN"] = str(options.bin.resolve())
        os.environ["SCALE_TEST_CACHE"] = str(options.cache.resolve())
        sys.path.insert(0, str(HERE))
        loader = unittest.defaultTestLoader
        suite = loader.loadTestsFromNames(options.tests) if options.tests else loader.discover(str(HERE), "test_*.py")
        result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
