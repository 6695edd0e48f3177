"""A knowledge base of Amazon Bedrock: the operation Retrieve, without any model of Bedrock's.

Each result of type TEXT is one passage; pictures, rows, sound and films are left out. Its title is the metadata
attribute `title`, else the name of the file that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sdar_envs.search_qa.retrievers.aws_service import AwsRetriever, text_field, titled
from sdar_envs.search_qa.retrievers.base import Hit, RetrieverError

_SEARCH_TYPES = ("HYBRID", "SEMANTIC")


class BedrockRetriever(AwsRetriever):
    """One knowledge base.

    Args:
        knowledge_base: its id (ten letters and digits) or ARN.
        search_type: HYBRID or SEMANTIC; None leaves it to Bedrock.
        title: name of the metadata attribute that holds a passage's title.
        patience: see `AwsRetriever`.
    """

    name = "bedrock"
    service = "bedrock-agent-runtime"
    right = "bedrock:Retrieve"
    max_query = 20_000
    defaults = {"knowledge_base": None, "search_type": None, "title": "title"}

    def __init__(
        self, knowledge_base: str | None, search_type: str | None = None, title: str = "title", **patience: Any
    ) -> None:
        if not isinstance(knowledge_base, str) or not knowledge_base:
            raise RetrieverError("retriever bedrock needs knowledge_base, the id of a knowledge base")
        if search_type is not None and search_type not in _SEARCH_TYPES:
            raise RetrieverError(f"search_type is {search_type!r}; known: {', '.join(_SEARCH_TYPES)}, or leave it out")
        self._id, self._type, self._title = knowledge_base, search_type, title
        super().__init__(f"the knowledge base {knowledge_base}", **patience)

    def _page(self, query: str, k: int, token: Any) -> tuple[list[Hit], Any]:
        vectors: dict[str, Any] = {"numberOfResults": k}
        if self._type is not None:
            vectors["overrideSearchType"] = self._type
        more = {} if token is None else {"nextToken": token}
        answer = self._client.retrieve(
            knowledgeBaseId=self._id,
            retrievalQuery={"text": query},
            retrievalConfiguration={"vectorSearchConfiguration": vectors},
            **more,
        )
        texts = [item for item in answer["retrievalResults"] if item["content"].get("type", "TEXT") == "TEXT"]
        return [self._hit(item) for item in texts], answer.get("nextToken")

    def _hit(self, item: Mapping[str, Any]) -> Hit:
        text, source = text_field(item["content"], "text", self._where), _source(item)
        title = item.get("metadata", {}).get(self._title) or PurePosixPath(unquote(urlsplit(source).path)).stem
        chunk = item.get("metadata", {}).get("x-amz-bedrock-kb-chunk-id")
        return Hit(str(chunk or source), titled(str(title), text), float(item.get("score", 0.0)))


def _source(item: Mapping[str, Any]) -> str:
    """Where a passage came from: the one address that its location holds."""
    for place in item.get("location", {}).values():
        if isinstance(place, Mapping):
            return str(next(iter(place.values()), ""))
    return ""


RETRIEVER = BedrockRetriever
