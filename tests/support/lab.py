"""JupyterLab on a copy of the notebooks, with a token, on loopback, with settings of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.lab import CONFIG
from tests.support.gateway import find_free_ports, is_answered, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_SETTINGS = {
    # every output is in the page, also one that is out of sight
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass(frozen=True)
class Lab:
    url: str
    token: str
    home: Path

    def open(self, page: Page, notebook: str) -> None:
        page.goto(f"{self.url}/lab/tree/{notebook}.ipynb?token={self.token}&reset")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=90_000)
        self.wait_idle(page)

    def wait_idle(self, page: Page, timeout_s: float = 150) -> None:
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=timeout_s * 1_000)

    def run(self, page: Page, item: str) -> None:
        prompts = "[...document.querySelectorAll('.jp-InputArea-prompt')].map(p => p.textContent)"
        before = page.evaluate(f"() => {prompts}.join()")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        label = page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$"))
        label.click()
        page.wait_for_function(f"before => {prompts}.join() !== before", arg=before)
        page.wait_for_function(f"() => !{prompts}.join().includes('*')", timeout=150_000)
        self.wait_idle(page)


@contextmanager
def run_lab(folder: Path, env: Mapping[str, str]) -> Iterator[Lab]:
    root = folder / "notebooks"
    shutil.copytree(NOTEBOOKS, root)
    for name, values in _SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (port,) = find_free_ports(1)
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder / "reports")
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={lab.token}", f"--ServerApp.root_dir={root}",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    own = {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_CONFIG_PATH": str(CONFIG),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "RUNBOOK_HOME": str(lab.home),
    }
    log = folder / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **env, **own}, stdout=out, stderr=out
        )
        try:
            status = f"{lab.url}/api/status?token={lab.token}"
            wait_until(lambda: is_answered(status), what=f"JupyterLab: {log}", deadline_s=90)
            yield lab
        finally:
            process.terminate()
            process.wait(timeout=30)
