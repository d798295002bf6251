"""The files for Kubernetes and systemd, as far as they can be checked without either; docker-compose.yml."""
import json, os, pathlib, re, subprocess, tempfile, unittest

import kubernetes_validate, yaml

from servers import CONFIG, Millrace, get
from traffic import Crowd

KUBERNETES = CONFIG / "kubernetes"
# Kinds that Kubernetes itself has. Those of others were checked against their published definitions: docs/kubernetes.md.
BUILT_IN = {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def deployment():
    [found] = documents(KUBERNETES / "deployment.yaml")
    return found["spec"]["template"]["spec"]


class Kubernetes(unittest.TestCase):
    def test_built_in_kinds_are_valid(self):
        seen = set()
        for path in sorted(KUBERNETES.glob("*.yaml")):
            for document in documents(path):
                if document["kind"] in BUILT_IN:
                    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
                    seen.add(document["kind"])
        self.assertEqual(seen, BUILT_IN)

    def test_everything_selects_the_pods(self):
        [d] = documents(KUBERNETES / "deployment.yaml")
        labels = d["spec"]["template"]["metadata"]["labels"]
        for path in sorted(KUBERNETES.glob("*.yaml")):
            for document in documents(path):
                if document["kind"] in {"Service", "PodDisruptionBudget", "PodMonitor", "InferencePool"}:
                    selector = document["spec"]["selector"]
                    self.assertEqual(selector.get("matchLabels", selector), labels, path)

    def test_the_grace_covers_delay_and_drain(self):
        environment = {e["name"]: e.get("value") for e in deployment()["containers"][0]["env"]}
        needed = float(environment["MILLRACE_SHUTDOWN_DELAY_S"]) + float(environment["MILLRACE_SHUTDOWN_TIMEOUT_S"])
        self.assertGreater(deployment()["terminationGracePeriodSeconds"], needed)

    def test_a_server_starts_with_the_environment_of_the_pod(self):
        environment = {e["name"]: e.get("value", "1") for e in deployment()["containers"][0]["env"]}
        self.assertFalse(deployment()["enableServiceLinks"])
        with tempfile.TemporaryDirectory() as folder:
            # As a secret of Kubernetes is mounted: a link to a link, readable by the group.
            data = pathlib.Path(folder, "..2026")
            data.mkdir()
            subprocess.run([os.environ["SCALE_TEST_BIN"], "keys", "add", "pod", "--file", data / "keys.toml"], check=True, capture_output=True)
            (data / "keys.toml").chmod(0o440)
            pathlib.Path(folder, "..data").symlink_to("..2026")
            pathlib.Path(folder, "keys.toml").symlink_to("..data/keys.toml")
            environment["MILLRACE_API_KEY_FILE"] = f"{folder}/keys.toml"
            with Millrace(8000, **environment) as server:
                for probe in "startupProbe", "readinessProbe", "livenessProbe":
                    path = deployment()["containers"][0][probe]["httpGet"]["path"]
                    self.assertEqual(get(8000, path)[0], 200)
                self.assertEqual(server.metric("millrace_keys"), 2)


class EndpointPicker(unittest.TestCase):
    """What the endpoint picker of the Gateway API Inference Extension reads of a pod's metrics."""

    def test_the_metrics_while_load_runs(self):
        with Millrace(8000, model="fake:step_ms=2,kv_blocks=24"), Crowd(8000, clients=8, max_tokens=60) as crowd:
            busy = 0
            while busy < 20 or crowd.done() < 40:
                _, text = get(8000, "/metrics")
                running, waiting, used = (self.gauge(text, f"vllm:{n}") for n in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"))
                self.assertTrue(running >= 0 and running == int(running))
                self.assertTrue(waiting >= 0 and waiting == int(waiting))
                self.assertTrue(0 <= used <= 1, used)
                info = re.search(r"^vllm:cache_config_info\{([^}]*)\} 1$", text, re.M)
                labels = dict(re.findall(r'(\w+)="([^"]*)"', info[1]))
                self.assertEqual((int(labels["block_size"]), int(labels["num_gpu_blocks"])), (32, 24))
                busy += running > 0 and used > 0
        self.assertTrue(all(o.whole for o in crowd.outcomes))

    def gauge(self, text, name):
        """The one value of a gauge, which has the model's name for a label, and its type before it."""
        self.assertIn(f"# TYPE {name} gauge\n", text)
        [(labels, value)] = re.findall(rf"^{name}\{{([^}}]*)\}} (\S+)$", text, re.M)
        self.assertEqual(labels, 'model_name="fake"')
        return float(value)


class Systemd(unittest.TestCase):
    def unit(self, folder):
        """The unit with a path to a binary that is there."""
        unit = pathlib.Path(folder, "millrace.service")
        unit.write_text((CONFIG / "millrace.service").read_text().replace("/usr/local/bin/millrace", os.environ["SCALE_TEST_BIN"]))
        return unit

    def test_it_is_sound(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["systemd-analyze", "verify", self.unit(folder)], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_it_is_well_protected(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", self.unit(folder)],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout[-500:] + done.stderr)

    def test_its_environment_is_known_to_the_server(self):
        text = (CONFIG / "millrace.service").read_text()
        names = set(re.findall(r"^Environment=(MILLRACE_\w+)=", text, re.M))
        shown = subprocess.run([os.environ["SCALE_TEST_BIN"], "serve", "--help"], check=True, capture_output=True, text=True).stdout
        self.assertEqual({n for n in names if n not in shown}, set())


class Compose(unittest.TestCase):
    def test_what_it_mounts_is_there(self):
        compose = yaml.safe_load((CONFIG.parent / "docker-compose.yml").read_text())
        self.assertEqual(set(compose["services"]), {"millrace", "prometheus", "grafana"})
        for name in "prometheus", "grafana":
            self.assertEqual(compose["services"][name]["profiles"], ["monitoring"])
            for volume in compose["services"][name]["volumes"]:
                source = volume.split(":")[0]
                self.assertTrue(source in compose["volumes"] or (CONFIG.parent / source).exists(), source)

    def test_grafana_finds_its_dashboard_and_its_data(self):
        provisioning = CONFIG / "grafana" / "provisioning"
        [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
        dashboard = json.loads((CONFIG / "grafana/dashboards/millrace.json").read_text())
        used = {target["datasource"]["uid"] for panel in dashboard["panels"] for target in panel.get("targets", [])}
        self.assertEqual(used, {source["uid"]})
        [provider] = yaml.safe_load((provisioning / "dashboards/millrace.yml").read_text())["providers"]
        mounts = yaml.safe_load((CONFIG.parent / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
        self.assertIn(f"./config/grafana/dashboards:{provider['options']['path']}:ro", mounts)
