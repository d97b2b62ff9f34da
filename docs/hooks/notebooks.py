"""docs/notebooks/*.ipynb as pages of the site, with the outputs that are stored in them; and as downloads.

A code cell that begins with %%bash is a block of shell, another one a block of Python; of an output its picture is
shown, or else its text.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SHELL = "%%bash\n"
# HTML, for repository.py would lead a link to this page.
NOTE = '<p><a href="{name}" download>{name}</a> is this page as a notebook.</p>'


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(Path(file.abs_src_path or "").read_text(encoding="utf-8"))
        stem = file.src_uri.removesuffix(".ipynb")
        text, pictures = page_of(notebook, Path(file.src_uri).name)
        files.append(File.generated(config, f"{stem}.md", content=text))
        for number, picture in enumerate(pictures, 1):
            files.append(File.generated(config, f"{stem}-{number}.png", content=picture))
    return files


def page_of(notebook: dict[str, Any], name: str) -> tuple[str, list[bytes]]:
    """A notebook's Markdown, and the PNG files that it refers to: STEM-1.png …"""
    parts: list[str] = []
    pictures: list[bytes] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "sh" if source.startswith(SHELL) else "python"
        parts.append(_fenced(source.removeprefix(SHELL), language))
        for kind, content in map(_shown, cell["outputs"]):
            if kind == "picture":
                pictures.append(base64.b64decode(content))
                parts.append(f"![What the code draws]({name.removesuffix('.ipynb')}-{len(pictures)}.png)")
            elif content.strip():
                parts.append(_fenced(content, "text"))
    parts.insert(1, NOTE.format(name=name))
    return "\n\n".join(parts), pictures


def _shown(output: dict[str, Any]) -> tuple[str, str]:
    """("picture", base64) or ("text", text)."""
    data = output.get("data", {})
    if "image/png" in data:
        return "picture", "".join(data["image/png"])
    return "text", "".join(output.get("text", data.get("text/plain", "")))


def _fenced(text: str, language: str) -> str:
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", text))])
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"
