"""Today's prices from AWS, with boto3: on demand from the Pricing API, spot from EC2's price history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.plan.catalogue import Catalogue, Price
from sdar_verl.plan.units import PlanError

KINDS = ("on_demand", "spot")
_PRICING_REGION = "us-east-1"  # one of the few regions where the Pricing API answers; it knows all of them
_FILTERS = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}


def fetch(
    catalogue: Catalogue, *, kinds: Iterable[str], region: str, today: date, clients: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Price]]:
    """Prices of every instance of the catalogue in `region`; those that AWS does not offer there are left out.

    Args:
        kinds: which of `KINDS`.
        clients: boto3 clients by service (``pricing``, ``ec2``); made when missing.

    Raises:
        PlanError: boto3 is missing, AWS refuses, or an answer has another form than documented.
    """
    found: dict[str, dict[str, Price]] = {}
    for kind in kinds:
        service = "pricing" if kind == "on_demand" else "ec2"
        client = (clients or {}).get(service) or _client(service, _PRICING_REGION if kind == "on_demand" else region)
        if kind == "on_demand":
            prices = {name: price for name in catalogue.instances if (price := _on_demand(client, name, region, today))}
        else:
            prices = _spot(client, list(catalogue.instances), region, today)
        for name, price in prices.items():
            found.setdefault(name, {})[kind] = price
    if not found:
        raise PlanError(f"AWS gave no price of a known instance in {region}; is the region's name right?")
    return found


def save(prices: Mapping[str, Mapping[str, Price]], path: Path) -> None:
    """Write prices as ``--prices`` reads them."""
    plain = {
        name: {
            market: {k: v.isoformat() if isinstance(v, date) else v for k, v in vars(price).items() if v is not None}
            for market, price in row.items()
        }
        for name, row in prices.items()
    }
    write_atomic(path, json.dumps(plain, indent=1) + "\n")


def _client(service: str, region: str) -> Any:
    try:
        import boto3
    except ImportError:
        raise PlanError("--refresh needs boto3: pip install 'sdar-verl[aws]'") from None
    return boto3.client(service, region_name=region)


def _on_demand(client: Any, name: str, region: str, today: date) -> Price | None:
    filters = {**_FILTERS, "instanceType": name, "regionCode": region}
    request: dict[str, Any] = {
        "ServiceCode": "AmazonEC2",
        "FormatVersion": "aws_v1",
        "Filters": [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in sorted(filters.items())],
    }
    hourly: set[float] = set()
    while True:
        answer = _call(client.get_products, request)
        for entry in answer["PriceList"]:
            hourly |= _hourly(entry, name)
        if not answer.get("NextToken"):
            break
        request["NextToken"] = answer["NextToken"]
    if not hourly:
        return None
    if len(hourly) > 1:
        raise PlanError(f"the Pricing API gives several prices for {name} in {region}: {sorted(hourly)}")
    return Price(hourly.pop(), region, today, f"AWS Pricing API, {today}")


def _hourly(entry: str, name: str) -> set[float]:
    """Positive hourly USD prices of a product; the API also lists reservations at 0."""
    try:
        terms = json.loads(entry)["terms"].get("OnDemand", {})
        dimensions = [d for term in terms.values() for d in term["priceDimensions"].values()]
        prices = {float(d["pricePerUnit"]["USD"]) for d in dimensions if d["unit"] == "Hrs"}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"the Pricing API's answer for {name} has another form than documented: {error!r}") from error
    return {price for price in prices if price > 0}


def _spot(client: Any, names: list[str], region: str, today: date) -> dict[str, Price]:
    request: dict[str, Any] = {
        "InstanceTypes": names,
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": datetime(today.year, today.month, today.day, tzinfo=timezone.utc),
    }
    zones: dict[str, dict[str, tuple[datetime, float]]] = {}
    while True:
        answer = _call(client.describe_spot_price_history, request)
        for row in answer["SpotPriceHistory"]:
            zone, now = zones.setdefault(row["InstanceType"], {}), (row["Timestamp"], float(row["SpotPrice"]))
            zone[row["AvailabilityZone"]] = max(zone.get(row["AvailabilityZone"], now), now)
        if not answer.get("NextToken"):
            break
        request["NextToken"] = answer["NextToken"]
    found = {}
    for name, zone in zones.items():
        usd = [price for _, price in zone.values()]
        found[name] = Price(median(usd), region, today, f"EC2 spot price history, {today}", min(usd), max(usd))
    return found


def _call(method: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return method(**request)
    except (BotoCoreError, ClientError) as error:
        raise PlanError(f"AWS did not answer: {error}") from error
