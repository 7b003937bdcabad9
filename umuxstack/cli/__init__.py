"""The command line, `umux`: one file for each group of commands, loaded when a command needs it."""

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Users' mistakes become a sentence, never a traceback."""
    from umuxstack.cli import common

    try:
        from umuxstack.cli.parser import parse

        arguments = parse(sys.argv[1:] if argv is None else argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return common.INTERRUPTED
    except BrokenPipeError:
        # `umux … | head`: nobody reads on. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.PIPE_CLOSED
    except Exception as error:
        failure = common.explain(error)
        if failure is None:
            raise
        print(f"umux: {failure.cause}", file=sys.stderr)
        if failure.fix:
            print(f"      {failure.fix}", file=sys.stderr)
        return failure.code
    return code
