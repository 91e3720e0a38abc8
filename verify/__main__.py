"""Says of a deployed stack what works, and where something does not, why and what to do: `python -m verify STACK`."""

import argparse
import shutil
import sys

from botocore.exceptions import BotoCoreError, ClientError

from verify import globs, interrupts, results, stack
from verify.aws import Account
from verify.results import BROKEN, HELD, UNCHECKED, Results
from verify.run import Options, run

RUN_SECONDS = 450
"""Says when a run ends, whatever it waits for: what it made is removed by then, and ten minutes are not over."""
WAIT_SECONDS = range(10, 301)


def main() -> int:
    """Prints the table; returns 0 where nothing failed, 1 where something did, 2 where it was called wrongly."""
    options = _options()
    rows = Results()
    interrupts.listen(RUN_SECONDS)
    try:
        account = Account()
        deployed = stack.find(account, options.stack)
    except stack.Unknown as error:
        return _wrong(str(error))
    except (BotoCoreError, ClientError) as error:
        return _wrong(f"The stack {options.stack!r} cannot be asked after: {results.said(error)}")
    try:
        run(account, deployed, Options(options.repository, options.wait_seconds), rows)
    except interrupts.TimeIsUp:
        rows.broken("the rest", f"the run's {RUN_SECONDS} seconds are over; run it again")
    except interrupts.Stopped:
        rows.broken("the rest", "the run was stopped")
    print(results.table(rows.rows, shutil.get_terminal_size((160, 50)).columns))
    counts = (f"{rows.count(state)} {state}" for state in (HELD, BROKEN, UNCHECKED))
    print(f"\n{deployed.name}, cluster {deployed.cluster}: {', '.join(counts)}")
    return int(rows.count(BROKEN) > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verify", description=__doc__)
    parser.add_argument("stack", help="the stack's name")
    parser.add_argument(
        "--repository", type=_repository, help="the repository to push to; one that is there stays, without the image"
    )
    parser.add_argument(
        "--wait-seconds", type=_seconds, default=240, help="how long the nodes may take; 10 to 300, 240 without it"
    )
    return parser.parse_args()


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) not in WAIT_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {WAIT_SECONDS[0]} to {WAIT_SECONDS[-1]}")
    return int(text)


def _repository(text: str) -> str:
    if not globs.is_repository(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a repository's name, of lower-case letters, digits and . _ - /")
    return text


def _wrong(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (interrupts.Stopped, interrupts.TimeIsUp):
        sys.exit("Stopped before anything was found.")
