"""Prices from AWS, by contract: requests and answers go through botocore's own model of the two services."""

import json
from datetime import date, datetime, timezone

import boto3
import pytest
from botocore import stub

from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.refresh import fetch, save
from sdar_verl.plan.units import PlanError

TODAY = date(2026, 11, 21)
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def client(service):
    made = boto3.client(service, region_name="us-east-1", **KEYS)
    return made, stub.Stubber(made)


def one(*names):
    catalogue = load_catalogue()
    return type(catalogue)(
        {catalogue.get(name).name: catalogue.get(name) for name in names}, catalogue.s3_usd_per_gb_month
    )


def product(usd, unit="Hrs"):
    dimension = {"unit": unit, "pricePerUnit": {"USD": str(usd)}}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"a.b": {"priceDimensions": {"a.b.c": dimension}}}}})


def request(name, **more):
    fields = {"operatingSystem": "Linux", "preInstalledSw": "NA", "tenancy": "Shared", "capacitystatus": "Used",
              "instanceType": name, "regionCode": "eu-west-1"}  # fmt: skip
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": fields[key]} for key in sorted(fields)]
    return {"ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "Filters": filters, **more}


def test_on_demand_prices_of_all_pages():
    made, stubber = client("pricing")
    stubber.add_response("get_products", {"PriceList": [product(0)], "NextToken": "more"}, request("p4d.24xlarge"))
    stubber.add_response("get_products", {"PriceList": [product(19.5)]}, request("p4d.24xlarge", NextToken="more"))
    stubber.add_response("get_products", {"PriceList": []}, request("p5.48xlarge"))
    with stubber:
        found = fetch(one("p4d", "p5"), kinds=["on_demand"], region="eu-west-1", today=TODAY, clients={"pricing": made})
    stubber.assert_no_pending_responses()
    assert set(found) == {"p4d.24xlarge"}, "an instance that is not offered there keeps its old price"
    price = found["p4d.24xlarge"]["on_demand"]
    assert (price.usd, price.region, price.as_of) == (19.5, "eu-west-1", TODAY) and "Pricing API" in price.source


def test_spot_takes_the_newest_price_of_each_zone():
    def row(zone, hour, usd):
        time = datetime(2026, 11, 21, hour, tzinfo=timezone.utc)
        return {"InstanceType": "p4d.24xlarge", "AvailabilityZone": zone, "SpotPrice": str(usd), "Timestamp": time}

    made, stubber = client("ec2")
    wanted = {"InstanceTypes": ["p4d.24xlarge"], "ProductDescriptions": ["Linux/UNIX"],
              "StartTime": datetime(2026, 11, 21, tzinfo=timezone.utc)}  # fmt: skip
    first = {"SpotPriceHistory": [row("a", 1, 9.0), row("a", 5, 7.0), row("b", 2, 8.0)], "NextToken": "more"}
    stubber.add_response("describe_spot_price_history", first, wanted)
    stubber.add_response("describe_spot_price_history", {"SpotPriceHistory": [row("c", 3, 12.0)]},
                         wanted | {"NextToken": "more"})  # fmt: skip
    with stubber:
        found = fetch(one("p4d"), kinds=["spot"], region="us-east-1", today=TODAY, clients={"ec2": made})
    price = found["p4d.24xlarge"]["spot"]
    assert (price.low, price.usd, price.high) == (7.0, 8.0, 12.0)


def test_what_was_found_is_read_back_and_used(tmp_path):
    made, stubber = client("pricing")
    stubber.add_response("get_products", {"PriceList": [product(19.5)]}, request("p4d.24xlarge"))
    with stubber:
        found = fetch(one("p4d"), kinds=["on_demand"], region="eu-west-1", today=TODAY, clients={"pricing": made})
    save(found, tmp_path / "prices.json")
    again = load_catalogue(tmp_path / "prices.json").get("p4d")
    assert again.prices["on_demand"] == found["p4d.24xlarge"]["on_demand"]
    assert again == load_catalogue().with_prices(found).get("p4d")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([product(1), product(2)], "several prices"),
        (["{}"], "another form"),
        (["no JSON"], "another form"),
        ([product("free")], "another form"),
        ([product(5, unit="Quantity")], "no price of a known instance"),
    ],
)
def test_answers_that_say_nothing_clear_are_refused(entries, message):
    made, stubber = client("pricing")
    stubber.add_response("get_products", {"PriceList": entries}, request("p4d.24xlarge"))
    with stubber, pytest.raises(PlanError, match=message):
        fetch(one("p4d"), kinds=["on_demand"], region="eu-west-1", today=TODAY, clients={"pricing": made})


def test_a_refusal_of_aws_is_told():
    made, stubber = client("pricing")
    stubber.add_client_error("get_products", "AccessDeniedException", "not authorized to perform pricing:GetProducts")
    with stubber, pytest.raises(PlanError, match="not authorized"):
        fetch(one("p4d"), kinds=["on_demand"], region="eu-west-1", today=TODAY, clients={"pricing": made})
