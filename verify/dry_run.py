"""Submits a dry run: what would be sent is told, and nothing is."""

from collections.abc import Collection

from verify.jobs import Jobs, Refused
from verify.push import listed
from verify.results import Results, counted

WHAT = "a dry run sends nothing"


def check(
    api: Jobs, image: str | None, digest: str, rule: str, results: Results, besides: Collection[str] = ()
) -> None:
    """Submits a dry run of the image, or of a rule's newest where none was pushed, and looks for jobs of it.

    Those that the run itself has sent are left out.
    """
    body = {"images": [image]} if image else {"rule": rule}
    try:
        answer = api.post("/jobs", {**body, "dryRun": True})
        sent = [job["id"] for job in answer["jobs"] if "id" in job]
        sent += [job["id"] for job in listed(api, digest, "job") if job["id"] not in besides]
    except Refused as error:
        # Without an image of the run's own there may be none that a rule could bring.
        (results.unchecked if error.status == 400 and not image else results.broken)(WHAT, str(error))
        return
    if sent or answer.get("dryRun") is not True:
        results.broken(WHAT, f"it has sent {', '.join(sent) or 'what nobody knows'}")
    else:
        results.held(WHAT, f"it would send {counted(len(answer['jobs']), 'command')}")
