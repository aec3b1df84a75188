"""A program of torch.export as a .tflite file: python -P convert_to_litert.py SOURCE TARGET.

Run by the Python of an environment with litert-torch, of which nothing else of this program is.
"""

import sys

import torch


def main(source: str, target: str) -> None:
    import litert_torch  # which the program's own environment lacks

    program = torch.export.load(source)
    inputs, _ = program.example_inputs
    litert_torch.convert(program.module(), inputs).export(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
