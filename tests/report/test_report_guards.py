"""What guards found is in the report and on the inspect page; a run without findings has no such section."""

from synthetic_runs import make_panel, make_run

from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.guards import FILE, Finding, to_line
from sdar_verl.report.guards import guards_section, spans
from sdar_verl.report.inspect_page import build_page
from sdar_verl.report.quickstart import build_report
from sdar_verl.report.run import Run


def test_findings_are_shown_with_their_steps(tmp_path):
    run = make_run(tmp_path / "run", make_panel(2), distil=True, steps=4, every=2)
    assert guards_section([Run(run, "run")]) == ""
    with JsonlWriter(run / FILE) as writer:
        for step in (1, 2, 4):
            writer.write(to_line(Finding(step, "kl_blowup", "warn", float(step), 0.5, f"far <away> at {step}")))
    for page in (build_report([run], tmp_path / "report"), build_page(run, tmp_path / "inspect")):
        text = page.read_text(encoding="utf-8")
        assert 'id="guards"' in text and "1 to 2, 4" in text and "far &lt;away&gt; at 4" in text


def test_steps_are_written_as_spans():
    assert spans([3, 4, 5, 9]) == "3 to 5, 9" and spans([2]) == "2" and spans([]) == ""
    assert spans([5, 4, 5, 1]) == "1, 4 to 5"
