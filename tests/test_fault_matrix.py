"""Tests what becomes of functions' work when AWS fails them, on a sample of the matrix that `make faults` prints."""

import json
from random import Random

import pytest
from fault_matrix.cells import Cell, Run
from fault_matrix.faults import FAULTS, Call
from fault_matrix.matrix import cells, judged
from fault_matrix.scenarios import SCENARIOS
from fault_matrix.verdicts import verdict

from benches.runtime_api import Invocation
from local.stack import TEMPLATE

SAMPLE = 160
SEED = 1
WAITS = ("throttled", "500", "503", "timeout", "slow")
"""Names the faults of which only the first is sampled: what they have tried again may take a minute each."""

PUSH = next(scenario for scenario in SCENARIOS if scenario.name == "a push")
CALL = Call("ssm", "SendCommand", 1)
DONE = [Invocation(0.1, {"decision": "sent"})]
SAID = json.dumps({"message": "the command could not be sent: AccessDeniedException"})


def test_whatever_call_fails_the_work_is_done_or_handed_back_or_its_loss_is_told():
    quick = [cell for cell in cells(TEMPLATE.parent, SCENARIOS) if cell.fault.name not in WAITS or cell.times == "once"]
    verdicts = judged(TEMPLATE.parent, Random(SEED).sample(quick, SAMPLE))
    bad = [f"{cell}: {one.outcome}: {one.why[:1000]}" for cell, one in verdicts.items() if not one.is_good]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("sent", "left", "log", "times", "outcome"),
    [
        (1, None, "", "once", "done"),
        (0, None, SAID, "once", "lost"),
        (2, None, SAID, "once", "doubled"),
        (0, PUSH.event, SAID, "for ever", "dead letter"),
        (2, PUSH.event, SAID, "for ever", "doubled"),
        (0, PUSH.event, "", "for ever", "unsaid"),
        (1, None, "thread main panicked at", "once", "panicked"),
    ],
)
def test_what_is_lost_done_twice_or_unsaid_is_told_from_what_is_done(sent, left, log, times, outcome):
    denied = next(fault for fault in FAULTS if fault.name == "denied")
    run = Run({"commands": ["a command"] * sent}, [CALL], DONE, left, log, failed=1)
    clean = Run({"commands": ["a command"]}, [CALL], DONE, None, "")
    assert verdict(Cell(PUSH, CALL, denied, times), run, clean).outcome == outcome


def test_a_command_whose_answer_is_lost_may_be_sent_twice():
    reset = next(fault for fault in FAULTS if fault.name == "reset")
    run = Run({"commands": ["a command"] * 2}, [CALL], DONE, None, "", failed=1)
    clean = Run({"commands": ["a command"]}, [CALL], DONE, None, "")
    assert verdict(Cell(PUSH, CALL, reset, "once"), run, clean).outcome == "sent twice"
