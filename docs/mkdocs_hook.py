"""A hook of mkdocs: documents link to files of the checkout, which lie outside docs/."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")
_DOCS = re.compile(r"(?<=\]\()docs/")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is linked, and the drawings of the models' cards, under their paths there."""
    wanted = {f"models/{path.name}" for path in ROOT.glob("models/*.svg")}
    for page in files.documentation_pages():
        wanted |= set(_OUTSIDE.findall(page.content_string))
    for path in sorted(wanted):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links to where `on_files` has put the files."""
    if page.file.src_uri.startswith("models/"):
        return markdown
    return _DOCS.sub("", _OUTSIDE.sub(r"\1", markdown))
