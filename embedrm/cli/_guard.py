"""How a command ends: exit codes, one-line errors, interrupts and closed pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from embedrm.errors import EmbedRMError

ORDER = (
    "reproduce",
    "data",
    "encode",
    "tune",
    "fit",
    "merge",
    "evaluate",
    "compare",
    "best-of-n",
    "curve",
    "score",
    "cache",
)
FOUND, USER_ERROR, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

# The base of the parser's own errors; typer either brings its own or takes click's, so it is found by inheritance.
_PARSER_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
# What the machine refuses, as opposed to what a program gets wrong.
_ENVIRONMENT = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
# Errors are worded for Python; here is how to say the same on the command line.
_WORDS = {
    "on_error='skip'": "--on-error skip",
    "ties='keep'": "--ties keep",
    "ties='drop'": "--ties drop",
    "allow_group_leak=True": "--allow-group-leak",
    "with form=... (--form ...)": "with --form",
    "resume=False": "--no-resume",
    "missing='drop-prompts' or 'drop-responses'": "--missing drop-prompts or --missing drop-responses",
    "method='full'": "--method full",
    "method='lora'": "--method lora",
    "accept='": "--accept '",
    "rotation='procrustes'": "--rotation procrustes",
    "rescale=True": "--rescale",
    "align=True": "--align",
    "set validation_fraction=0": "--set validation_fraction=0",
}


class _Session:
    """The words of the running command, and what is kept should it be interrupted."""

    words: tuple[str, ...] = ()
    kept: str = ""


_session = _Session()


def command_line() -> str:
    """Return the running command as one would type it, for a report's provenance."""
    return shlex.join(["embedrm", *_session.words])


def keep(what: str) -> None:
    """Say what will be left behind by an interrupt from now on."""
    _session.kept = what


def bare_help(ctx: typer.Context) -> None:
    """Show a group's help where no sub-command was named."""
    if ctx.invoked_subcommand is None:
        write(ctx.get_help())
        raise typer.Exit


class Guarded(TyperGroup):
    """The root of the command line; :meth:`main` always exits, and no user's mistake shows a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the sub-commands in the order of work."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run ``args`` and exit with the code that :func:`guarded` gives."""
        words = tuple(sys.argv[1:] if args is None else args)
        _session.words, _session.kept = words, ""

        def run() -> None:
            with self.make_context("embedrm", list(words)) as ctx:
                self.invoke(ctx)

        sys.exit(guarded(run))


def guarded(run: Callable[[], None]) -> int:
    """Run a command and return its exit code, having said on stderr what went wrong.

    Returns
    -------
    int
        0 done; 1 where a check found something, or for a bug in embedrm (with a traceback); 2 for what a user or the
        machine caused (one line, no traceback); 130 for an interrupt; 141 where nobody reads standard output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character shows its escape; it is no reason to fail
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except typer.Exit as done:
        return _flushed(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _say(f"interrupted: {_session.kept or 'nothing was written'}.")
        return INTERRUPTED
    except _PARSER_ERROR as error:
        return _usage_error(error)
    except EmbedRMError as error:
        return _error(_spoken(str(error)))
    except MemoryError as error:
        return _error(f"memory ran out ({error or 'no size given'}); take fewer texts, layers or terms at once")
    except OSError as error:
        if error.errno == errno.EPIPE:
            _drop_stdout()
            return BROKEN_PIPE
        if error.errno in _ENVIRONMENT:
            place = f"{error.filename}: " if error.filename else ""
            return _error(f"{place}{error.strerror}; check the path, its permissions and the space on the disk")
        return _bug(error)
    except Exception as error:
        return _bug(error)
    return 0


def _flushed(code: int) -> int:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE
    return code


def _drop_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _error(message: str) -> int:
    _say(f"error: {message}")
    return USER_ERROR


def _usage_error(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "embedrm"
    message = str(getattr(error, "format_message", lambda: error)()).strip()
    end = "" if message.endswith((".", "?")) else "."
    return _error(f"{message}{end} See '{path} --help'")


def _bug(error: BaseException) -> int:
    _say("".join(traceback.format_exception(error)).rstrip())
    _say(
        f"error: this is a bug in embedrm, not in what you typed ({type(error).__name__}); please report it with the "
        "lines above and the command"
    )
    return 1


def _spoken(message: str) -> str:
    for python, words in _WORDS.items():
        message = message.replace(python, words)
    return message


def write(text: str, stream: TextIO | None = None) -> None:
    """Write a line to standard output, or to ``stream``; a stream that was closed before the start is no error."""
    stream = sys.stdout if stream is None else stream
    if stream is not None:
        stream.write(text + "\n")


def printable(text: str) -> str:
    """Show control characters instead of sending them to the terminal: texts and names come from other people."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _say(text: str) -> None:
    """Write to stderr; control characters that data or names may hold are shown and not sent to the terminal."""
    with contextlib.suppress(OSError):  # nobody may be left to tell
        write(printable(text), sys.stderr)
