"""A client for programs that ask for lab, vitals and nutrition jobs over SQS, in the form that the platform's own workers read.

It blocks, as the platform's sender does; one client may be shared by threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, get_args

from bridge.aws.access import Aws, AwsAccess
from bridge.errors import PoisonError

Priority = Literal["high", "normal", "low"]


class JobClient:
    """Sends jobs to the bridge's queue. Each call returns the id that SQS gave the message once SQS has it.

    Each raises `PoisonError` for a job that cannot be sent as asked; and as SQS answers,
    `TransientError`, `PermanentError`, `ConfigurationError`.
    """

    def __init__(self, queue_url: str, *, urgent_queue_url: str = "", access: AwsAccess | None = None) -> None:
        """`urgent_queue_url`: for jobs of high priority; without it they wait their turn like the others, for SQS knows no priorities.

        `access`: unset for AWS itself in us-east-1, with the credentials that every AWS program finds.
        """
        self._queue_url = queue_url
        self._urgent_queue_url = urgent_queue_url or queue_url
        self._aws = Aws(access, threads=1)
        self._opening = Lock()
        self._sqs: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        with self._opening:
            if self._sqs is not None:
                self._sqs.close()
            self._sqs = None

    def send_lab_categorization_job(
        self, *, user_id: int, document_id: int, tests: Sequence[Mapping[str, Any]], priority: Priority = "normal"
    ) -> str:
        """Ask for categories and codes of the tests of one document."""
        content = {"document_id": document_id, "tests": list(tests), "test_count": len(tests)}
        return self._send("lab_categorization", content, user_id=user_id, priority=priority)

    def send_loinc_mapping_job(self, *, test_name: str, priority: Priority = "normal") -> str:
        """Ask for the LOINC code of one name."""
        if not test_name.strip():
            raise PoisonError("test_name is empty; expected the name of a test, such as 'Hemoglobin'.")
        return self._send("loinc_mapping", {"test_name": test_name}, priority=priority)

    def send_pending_labs_job(self, *, user_id: int, priority: Priority = "normal") -> str:
        """Ask for a pass over a user's labs that wait."""
        return self._send("process_pending_labs", {}, user_id=user_id, priority=priority)

    def send_pending_vitals_job(self, *, user_id: int, priority: Priority = "normal") -> str:
        """Ask for a pass over a user's vitals that wait."""
        return self._send("process_pending_vitals", {}, user_id=user_id, priority=priority)

    def send_pending_nutrition_job(self, *, user_id: int, priority: Priority = "normal") -> str:
        """Ask for a pass over a user's meals that wait."""
        return self._send("process_pending_nutrition", {}, user_id=user_id, priority=priority)

    def _send(self, job_type: str, content: Mapping[str, Any], *, priority: str, user_id: int | None = None) -> str:
        if priority not in get_args(Priority):
            raise PoisonError(f"priority is {priority!r}; expected one of {', '.join(get_args(Priority))}.")
        user = {} if user_id is None else {"user_id": user_id}
        # The platform's workers read a time without a zone, and mean UTC.
        submitted = datetime.now(tz=UTC).replace(tzinfo=None).isoformat()
        try:
            body = json.dumps({"job_type": job_type, **user, **content, "priority": priority, "submitted_at": submitted}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PoisonError(
                f"the {job_type} job cannot be written as JSON ({error}); expected text, numbers, lists and objects."
            ) from error
        attributes = {
            "JobType": {"DataType": "String", "StringValue": job_type},
            "Priority": {"DataType": "String", "StringValue": priority},
        }
        if user_id is not None:
            attributes["UserId"] = {"DataType": "Number", "StringValue": str(user_id)}
        return self._sent(self._urgent_queue_url if priority == "high" else self._queue_url, body, attributes)

    def _sent(self, queue_url: str, body: str, attributes: Mapping[str, Any]) -> str:
        with self._opening:
            if self._sqs is None:
                self._sqs = self._aws.blocking("sqs")
            sqs = self._sqs
        arguments = {"QueueUrl": queue_url, "MessageBody": body, "MessageAttributes": attributes}
        return str(self._aws.call_blocking(sqs, "send_message", **arguments)["MessageId"])
