"""An index of Amazon Kendra: the operation Retrieve, which gives passages of up to 200 words."""

from __future__ import annotations

from typing import Any

from sdar_envs.search_qa.retrievers.aws_service import AwsRetriever, text_field, titled
from sdar_envs.search_qa.retrievers.base import Hit, RetrieverError

# Kendra says how sure it is in words, and for English alone; the order of the passages is its own.
_CONFIDENCE = {"VERY_HIGH": 1.0, "HIGH": 0.75, "MEDIUM": 0.5, "LOW": 0.25, "NOT_AVAILABLE": 0.0}


class KendraRetriever(AwsRetriever):
    """One index.

    Args:
        index: its id.
        patience: see `AwsRetriever`.
    """

    name = "kendra"
    service = "kendra"
    right = "kendra:Retrieve"
    max_query = 1_000
    defaults = {"index": None}

    def __init__(self, index: str | None, **patience: Any) -> None:
        if not isinstance(index, str) or not index:
            raise RetrieverError("retriever kendra needs index, the id of an index")
        self._id = index
        super().__init__(f"the Kendra index {index}", **patience)

    def _page(self, query: str, k: int, token: Any) -> tuple[list[Hit], Any]:
        # A page holds as many as may be asked for, so there is never a second one to ask for.
        answer = self._client.retrieve(IndexId=self._id, QueryText=query, PageSize=k)
        return [self._hit(item) for item in answer.get("ResultItems", [])], None

    def _hit(self, item: dict[str, Any]) -> Hit:
        score = _CONFIDENCE.get(item.get("ScoreAttributes", {}).get("ScoreConfidence", "NOT_AVAILABLE"), 0.0)
        text = text_field(item, "Content", self._where)
        return Hit(str(item.get("Id", "")), titled(item.get("DocumentTitle", ""), text), score)


RETRIEVER = KendraRetriever
