import http.server
import os
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from pipeline import check_cluster

ROOT = Path(check_cluster.__file__).resolve().parents[1]
FILES = ["cluster.yaml", "deploy/rayjob.yaml"]


@pytest.mark.parametrize("file", FILES)
def test_the_files_here_are_right_but_for_what_the_user_fills_in(file: str):
    text = (ROOT / file).read_text()
    assert check_cluster.problems(text) == []
    assert check_cluster.blanks(text)
    assert check_cluster.problems(text.replace(check_cluster.BLANK, "filled")) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "cluster.yaml",
            "min_workers: 0\n    max_workers: 4",
            "min_workers: 5\n    max_workers: 4",
            "train: min_workers 5 is above max_workers 4",
        ),
        (
            "cluster.yaml",
            "max_workers: 8",
            "max_workers: 80",
            "decode: max_workers 80 is above the whole",
        ),
        ("cluster.yaml", "head_node_type: head", "heads: head", "Ray refuses it"),
        ("cluster.yaml", "head_node_type: head", "head_node_type: big", "head_node_type is 'big'"),
        (
            "cluster.yaml",
            'labels: {"node-role": "decode"}',
            'labels: {"role": "decode"}',
            "node-role: decode",
        ),
        (
            "cluster.yaml",
            "--dashboard-host=127.0.0.1",
            "--dashboard-host=0.0.0.0",
            "listens on 0.0.0.0",
        ),
        (
            "cluster.yaml",
            "export RAY_AUTH_MODE=token; ulimit",
            "ulimit",
            "without RAY_AUTH_MODE=token",
        ),
        ("cluster.yaml", "ray:2.60.0", "ray:2.40.0", "Ray is 2.40 there"),
        ("cluster.yaml", "region: us-west-2", "region: 7", "Ray refuses it"),
        (
            "deploy/rayjob.yaml",
            "minReplicas: 0\n        maxReplicas: 4",
            "minReplicas: 5\n        maxReplicas: 4",
            "train: minReplicas 5",
        ),
        ("deploy/rayjob.yaml", "{mode: token}", "{mode: disabled}", "is not token"),
        ("deploy/rayjob.yaml", "entrypoint: >-", "entry: >-", "entrypoint is missing"),
        ("deploy/rayjob.yaml", "labels: {node-role: train}", "labels: {}", "train: has no label"),
        (
            "deploy/rayjob.yaml",
            "image: FILL-IN/tcmgc:0.1.0\n              env: &env",
            "image: other:1\n              env: &env",
            "one image",
        ),
        ("cluster.yaml", "provider:", "provider: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_said(file: str, old: str, new: str, said: str):
    text = (ROOT / file).read_text()
    assert old in text
    assert any(said in problem for problem in check_cluster.problems(text.replace(old, new)))


def test_the_command_counts_what_is_left_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "cluster.yaml"
    file.write_text((ROOT / "cluster.yaml").read_text())
    assert check_cluster.main(["--file", str(file)]) == 1
    assert "still to be filled in: ImageId: ami-FILL-IN" in capsys.readouterr().out
    file.write_text(file.read_text().replace(check_cluster.BLANK, "x"))
    assert check_cluster.main(["--file", str(file)]) == 0


def test_what_the_files_copy_and_run_is_there():
    values = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert values["file_mounts"]["/home/ray/tcmgc"] == "."
    commands = " ".join(values["worker_start_ray_commands"])
    assert "deploy/drain_on_notice.sh" in commands
    assert os.access(ROOT / "deploy/drain_on_notice.sh", os.X_OK)
    entry = yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())["spec"]["entrypoint"]
    from pipeline import cli, train

    words = entry.split()[2:]
    config = cli.parse(train.Arguments, words, "test", "").config
    assert (config.train.min_workers, config.train.workers) == (1, 4)
    assert (config.cluster.train_node, config.cluster.decode_node) == check_cluster.ROLES


def test_a_notice_from_the_provider_drains_the_node(tmp_path: Path):
    class Metadata(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_PUT(self) -> None:
            self.answer(200, b"token")

        def do_GET(self) -> None:
            Metadata.asked += 1
            known = self.headers["X-aws-ec2-metadata-token"] == "token" and Metadata.asked > 2
            self.answer(200 if known else 404, b"{}")

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ray = tmp_path / "ray"
    ray.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    ray.chmod(0o755)
    place = f"http://127.0.0.1:{server.server_address[1]}"
    env = {**os.environ, "METADATA": place, "PAUSE": "0.1", "RAY": str(ray), "no_proxy": "*"}
    try:
        subprocess.run([str(ROOT / "deploy/drain_on_notice.sh")], env=env, check=True, timeout=60)
    finally:
        server.shutdown()
        server.server_close()
    assert Metadata.asked == 3
    said = (tmp_path / "said").read_text()
    assert said.startswith("drain-node --reason DRAIN_NODE_REASON_PREEMPTION")
