"""What a wheel holds beside pyproject.toml's packages: the checkout's models and project files."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = runpy.run_path("flows/new_project.py")["FILES"]
# Where in the packages, and what of the checkout, with its folders from `above` on.
CONTENT = [
    ("nas_core/shipped", "models", ("*.json", "*.md", "*.safetensors", "*.svg")),
    ("flows/project_files", ".", FILES),
]


class BuildWithContent(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the checkout itself is used
        for target, above, patterns in CONTENT:
            for source in sorted(path for one in patterns for path in Path(above).glob(one)):
                place = Path(self.build_lib, target, source.relative_to(above))
                place.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(place))


setup(cmdclass={"build_py": BuildWithContent})
