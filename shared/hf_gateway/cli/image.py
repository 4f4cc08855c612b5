"""`hf-gateway image`: make images from a text, and write them to files."""

import argparse
import dataclasses
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.output import print_json, stdin_text
from hf_gateway.errors import ConfigError, visible
from hf_gateway.tasks.image.gateway import ImageGateway
from hf_gateway.values.image import EXTENSIONS, MAX_IMAGES, GeneratedImage, ImageResult
from hf_gateway.values.wording import quantity

STDOUT = "-"
"""The name of stdout as a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="what the image shows; by default all of stdin")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="image",
        help="the file; without an ending it gets that of the image's type; several images are numbered; - is stdout "
        "(default: image, in the current folder)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument("--n", type=int, default=1, metavar="N", help="how many images (default: 1)")
    parser.add_argument("--size", metavar="WxH", help="width and height in pixels, such as 1024x768")
    parser.add_argument("--steps", type=int, help="steps of denoising")
    parser.add_argument("--guidance-scale", type=float, help="how closely the image follows the prompt")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what the image is not to show")
    parser.add_argument("--seed", type=int, help="seed of the first image; the following ones have the next numbers")
    parser.add_argument("--chain", help="a chain of the config file; --model and --targets replace its own")
    parser.add_argument("--timeout", type=float, help="seconds for the whole request")


def run(arguments: argparse.Namespace) -> int:
    """Write the images; print their files on stdout, and which target made them on stderr."""
    prompt = " ".join(arguments.prompt)
    if not prompt:
        if sys.stdin.isatty():
            sys.stderr.write("type the prompt, and end it with Ctrl-D\n")
        prompt = stdin_text().removesuffix("\n")
    if not prompt.strip():
        raise ConfigError("the prompt is empty: hf-gateway image 'a cat on the moon', or pipe it in")
    width, height = _size(arguments.size)
    _check_output(arguments)  # before an image is made, which may cost
    with gateway_of(ImageGateway, arguments, {"timeout": arguments.timeout}) as gateway:
        result = gateway.generate(
            prompt,
            negative_prompt=arguments.negative_prompt,
            n=arguments.n,
            width=width,
            height=height,
            steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            seed=arguments.seed,
        )
    files = _write(result, arguments)
    if arguments.json:
        print_json(_described(result, files))
    elif arguments.output != STDOUT:
        sys.stdout.write("".join(f"{visible(str(file))}\n" for file in files))
    seeds = [str(image.seed) for image in result if image.seed is not None]
    seeded = f", seed {seeds[0]}" if len(result) == 1 and seeds else ""
    served = visible(", ".join(result.served_by))
    sys.stderr.write(f"{quantity(len(result), 'image')} by {served} in {result.seconds:.2f} s{seeded}\n")
    return 0


def _size(given: str | None) -> tuple[int | None, int | None]:
    if given is None:
        return None, None
    found = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", given.strip().lower())  # noqa: RUF001 - as people write it
    if found is None:
        raise ConfigError(f"--size is a width and a height in pixels, such as 1024x768, not {given!r}")
    return int(found[1]), int(found[2])


def _check_output(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for an output that could not be written, before anything is sent."""
    if arguments.output == STDOUT:
        if arguments.n != 1 or arguments.json:
            raise ConfigError(
                "-o - writes one image and nothing else to stdout; name a file for several images or --json"
            )
        if sys.stdout.isatty():
            raise ConfigError("an image is not written to a terminal; name a file: -o FILE, or redirect stdout")
        return
    file = Path(arguments.output)
    if not file.name or file.is_dir():
        raise ConfigError(f"{arguments.output!r} is a folder; name a file in it: -o {file / 'image'}")
    if not file.parent.is_dir():
        raise ConfigError(f"there is no folder {str(file.parent)!r} to write {file.name!r} into")
    endings = [file.suffix] if file.suffix else [f".{ending}" for ending in EXTENSIONS.values()]
    targets = [
        _numbered(file.with_name(f"{file.stem}{ending}"), place, arguments.n)
        for place in range(min(arguments.n, MAX_IMAGES))
        for ending in endings
    ]
    try:
        replaceable = [_is_replaceable(target, force=arguments.force) for target in targets]
        if not all(replaceable):
            with tempfile.TemporaryFile(dir=file.parent):
                pass  # only trying shows it: permissions do not bind root, and file systems may be read-only
    except OSError as error:
        raise ConfigError(f"{arguments.output!r} cannot be written: {error.strerror}; name another file") from None


def _is_replaceable(file: Path, *, force: bool) -> bool:
    """Return whether a file exists and may be replaced; False if it does not exist.

    Args:
        file: where an image may go.
        force: whether existing files are replaced.

    Raises:
        ConfigError: there is something that is not replaced.
        OSError: no file can have this name.
    """
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    if file.is_dir():
        raise ConfigError(f"{str(file)!r} is a folder; name another file")
    if not file.exists():
        raise ConfigError(f"{str(file)!r} is a link to a file that does not exist; name another file")
    if not force:
        raise ConfigError(f"{str(file)!r} exists; name another file, or pass --force to replace it")
    if not (file.is_file() or file.is_char_device()) or not os.access(file, os.W_OK):
        raise ConfigError(f"{str(file)!r} cannot be replaced; name another file")
    return True


def _write(result: ImageResult, arguments: argparse.Namespace) -> list[Path]:
    """Write the images, and return their files. What cannot be written goes to a temporary folder: it may have cost.

    Raises:
        OSError: an image is not where it belongs; the message says where it is.
    """
    if arguments.output == STDOUT:
        try:
            sys.stdout.buffer.write(result[0].data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _rescued([(Path(f"image.{result[0].extension}"), result[0])], "stdout", error) from error
        return []
    files = [_file_of(Path(arguments.output), image, place, len(result)) for place, image in enumerate(result)]
    for place, (file, image) in enumerate(zip(files, result, strict=True)):
        try:
            with file.open("wb" if arguments.force else "xb") as stream:
                stream.write(image.data)
        except OSError as error:
            raise _rescued(list(zip(files, result, strict=True))[place:], str(file), error) from error
        if file.suffix.lower().replace("jpeg", "jpg") != f".{image.extension}":
            sys.stderr.write(f"{visible(str(file))} is of the type {image.mime}, whatever its ending says\n")
    return files


def _rescued(images: list[tuple[Path, GeneratedImage]], place: str, reason: OSError) -> OSError:
    """Write images to a temporary folder; returns the error that says so.

    Args:
        images: those that are not written yet, with the files that they were meant for.
        place: what could not be written.
        reason: why.
    """
    folder = Path(tempfile.mkdtemp(prefix="hf-gateway-"))
    for file, image in images:
        (folder / file.name).write_bytes(image.data)
    saved = quantity(len(images), "image")
    return OSError(f"{place} could not be written ({reason.strerror}); {saved} went to {folder} instead")


def _file_of(file: Path, image: GeneratedImage, place: int, count: int) -> Path:
    named = file if file.suffix else file.with_name(f"{file.name}.{image.extension}")
    return _numbered(named, place, count)


def _numbered(file: Path, place: int, count: int) -> Path:
    return file if count == 1 else file.with_name(f"{file.stem}-{place + 1}{file.suffix}")


def _described(result: ImageResult, files: list[Path]) -> dict[str, Any]:
    """Return a result for JSON, without the bytes of its images."""
    listed = [
        {"file": str(file), "mime": image.mime, "bytes": len(image.data), "seed": image.seed}
        for file, image in zip(files, result, strict=True)
    ]
    return {
        "images": listed,
        "served_by": list(result.served_by),
        "attempts": [dataclasses.asdict(attempt) for attempt in result.attempts],
        "usage": dataclasses.asdict(result.usage),
        "seconds": result.seconds,
    }
