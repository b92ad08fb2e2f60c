"""The report's pages, rendered over small certificates by pandoc, and a small site by Quarto where it is installed."""

import base64
import hashlib
import re
import shutil
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml
from certificates import altered, certificate, classifier_certificate, write_run

from sublora.errors import SubloraError
from sublora.reporting import reading, search_index
from sublora.reporting.chosen import leave_out
from sublora.reporting.loads import external_loads
from sublora.reporting.render import BY_PANDOC, BY_QUARTO, find_quarto, render_report

PROJECT = Path(__file__).parent.parent / "report"
NOTEBOOKS = ("notebooks/quick-pretrain", "notebooks/quick-bounds", "notebooks/table1-lora-bounds")
PAGES = (
    "api", "arrow", "certificate", "compare", "compression", "experiments", "extend", "figures", "glue", "index", "method", "paper",
    "reproduce", "runs", "study", "tight",
)  # fmt: skip


class Skeleton(HTMLParser):
    """Ids, links, images and text of a page, and that its elements are closed in order."""

    VOID = {"meta", "link", "img", "br", "hr", "input", "col", "mspace", "mprescripts"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images, self.scripts, self.open, self.words = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.images += [values] if tag == "img" else []
        self.scripts += [values] if tag == "script" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "annotation"} & set(self.open):  # an annotation is a formula's source, which is not shown
            self.words.append(data)


def project_copy(folder, pages=PAGES):
    """The report's project with some of its pages."""
    others = [f"{name}.qmd" for name in set(PAGES) - set(pages)]
    ignored = shutil.ignore_patterns("_site", ".*", "notebooks", *others)
    return Path(shutil.copytree(PROJECT, folder / "report", ignore=ignored))


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> `<b>`{=html} [click](javascript:alert(3)) <javascript:alert(4)>\n\n"
    "[ref][r] ![pixel](https://example.org/p.png){.c} @nobody1999 {{< include /etc/hostname >}} &#60;script&#62; [^n]\n\n"
    "[r]: javascript:alert(5)\n\n[^n]: note\n\n```{=html}\n<script>alert(6)</script>\n```\n\n"
    "---\ntitle: taken\nfilters: [evil.lua]\n---\n\n::: {.panel-tabset}\n:::\n\n```{python}\nraise SystemExit\n```\n\n"
    "| a |\n|--:|\n| 12.34 |\n\n```\nnot closed <u>\n"
)


def write_notebook(path):
    """An executed notebook, whose every piece tries to be more than text."""
    new, escape = nbformat.v4, "\x1b[31m"
    plain = f"{escape}56.78\n```\n<script>alert(7)</script>\n---\ntitle: taken\n---\n{{{{< include x >}}}}\n"
    outputs = [
        new.new_output("stream", text=plain),
        new.new_output("display_data", {"text/html": "<script>alert(8)</script>", "text/plain": plain}),
        new.new_output("display_data", {"text/markdown": HOSTILE}),
        new.new_output("display_data", {"application/javascript": "alert(9)", "image/svg+xml": "<svg onload='alert(10)'/>"}),
        new.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"}),
        new.new_output("display_data", {"image/png": base64.b64encode(b"<svg/>").decode(), "text/plain": "no picture"}),
    ]
    cells = [new.new_markdown_cell(f"# Heading\n\n{HOSTILE}"), new.new_code_cell(f"#| output: asis\n{plain}", outputs=outputs)]
    nbformat.write(new.new_notebook(cells=cells), path)


def write_results(folder):
    """Kept tables, three certificates of Table 1 (and one too old), three of Figure 1 and a classifier's, and the params files."""
    results = folder / "results"
    shutil.copytree(PROJECT.parent / "params", folder / "params")
    results.mkdir()
    for path in (PROJECT.parent / "results").glob("*.csv"):
        shutil.copy(path, results)
    for name, size, loss in (("sublora", 281, 4.2), ("lora", 700, 4.3), ("full", 90_000, 3.1)):
        write_run(results / "table1", certificate(name, size, loss))
    write_run(results / "table1", altered(certificate("subspace"), "format", to="sublora-certificate/0"))
    for name, size, loss in (("d1", 60, 5.1), ("d2", 281, 4.2), ("d3", 4_000, 3.7)):
        write_run(results / "figure1", certificate(name, size, loss))
    write_run(results / "glue", classifier_certificate("sst2-small"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The site over two good runs and four that cannot be read: (site folder, runs folder, way)."""
    folder = tmp_path_factory.mktemp("rendered")
    runs_folder = folder / "runs"
    write_run(runs_folder, certificate())
    write_notebook(runs_folder / "quick" / "bounds.ipynb")
    (runs_folder / "quick" / "pretrain.ipynb").write_text("{}")
    write_run(runs_folder, certificate("another", 700, 4.6))
    write_run(runs_folder, altered(certificate("old"), "format", to="sublora-certificate/0"))
    write_run(runs_folder, certificate("<b>strange</b>".replace("/", "-"))).write_text("{")
    write_run(runs_folder, altered(certificate("incomplete"), "bounds", to=[]))
    (runs_folder / "unfinished").mkdir()
    (runs_folder / "unfinished" / "params.yaml").write_text("name: unfinished\n")
    write_results(folder)
    write_notebook(folder / "results" / "table1" / "lora" / "bounds.ipynb")
    index, way = render_report(project_copy(folder), runs_folder, quarto=None)
    return index.parent, runs_folder, way


@pytest.fixture(scope="module")
def pages(rendered):
    return {name: (rendered[0] / f"{name}.html").read_text("utf-8") for name in (*PAGES, *NOTEBOOKS)}


def rows(text, name):
    """The rows of all tables of a page that have a cell of this text."""
    return [row for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL) if f">{name}<" in row]


def test_every_page_is_there_and_well_formed(rendered, pages):
    site, _, way = rendered
    there_are = sorted(path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.*"))
    assert way == BY_PANDOC and there_are == sorted([*PAGES, *NOTEBOOKS])
    for name, text in pages.items():
        skeleton = Skeleton(text)
        assert len(skeleton.ids) == len(set(skeleton.ids)), f"{name}: an id is used twice"
        assert not [identity for identity in skeleton.ids if " " in identity], name
        shown = skeleton.text.replace("**", "") if name == "api" else skeleton.text  # a power, or keywords of a signature
        assert name in NOTEBOOKS or not re.search(r":::|#\||\{#|Traceback|\$\$|\*\*", shown), name


def test_nothing_is_loaded_from_anywhere(rendered, pages):
    assert external_loads(rendered[0]) == []
    for name, text in pages.items():
        skeleton = Skeleton(text)
        assert skeleton.scripts == [], name
        kind = "png" if name in NOTEBOOKS else "svg+xml"
        assert all(image["src"].startswith(f"data:image/{kind};base64,") for image in skeleton.images), name
        assert not re.search(r"mathjax|require\.js|\bcdn", re.sub(r"base64,[\w+/=]+", "", text), re.IGNORECASE), name


def test_every_figure_has_a_caption_and_an_alternative_text(pages):
    for name in ("compression", "figures", "glue", "index", "runs", "study", "tight"):
        skeleton = Skeleton(pages[name])
        assert skeleton.images and all(len(image["alt"]) > 40 for image in skeleton.images)
        numbers = re.findall(r"<figcaption>(Figure|Table)[\s\xa0]+(\d+):", pages[name])
        for kind in ("Figure", "Table"):
            assert [int(n) for k, n in numbers if k == kind] == list(range(1, 1 + sum(k == kind for k, _ in numbers)))


def test_links_between_and_within_pages_lead_somewhere(rendered, pages):
    skeletons = {name: Skeleton(text) for name, text in pages.items()}
    for name, skeleton in skeletons.items():
        inside = [link for link in skeleton.links if not link.startswith("https://")]
        assert len(inside) >= 4
        for link in inside:
            page, _, target = link.partition("#")
            there = (rendered[0] / name).parent / page if page else rendered[0] / f"{name}.html"
            name_there = there.resolve().relative_to(rendered[0].resolve()).with_suffix("").as_posix()
            assert not target or target in skeletons[name_there].ids, f"{name}: {link}"


def test_a_runs_name_leads_to_the_notebook_that_made_its_certificate(pages):
    text = pages["runs"]
    assert len(re.findall(r'<td[^>]*><a href="notebooks/quick-bounds.html">quick</a></td>', text)) >= 2
    for page in NOTEBOOKS:
        assert f'<a href="{page}.html">' in text
    assert re.search("<td[^>]*>another</td>", text) and "table1/lora" in Skeleton(text).text
    assert '<a href="../runs.html"' in pages["notebooks/quick-bounds"]


def test_notebooks_of_strangers_are_only_text_tables_and_images(pages):
    assert "cannot be read" in Skeleton(pages["notebooks/quick-pretrain"]).text
    for page in ("notebooks/quick-bounds", "notebooks/table1-lora-bounds"):
        skeleton, body = Skeleton(pages[page]), pages[page].split("<article>")[1].split("</article>")[0]
        assert_harmless(body)
        assert ">12.34</td>" in body and "56.78" in body and re.search(r"<summary>\s*Code\s*</summary>", body)
        assert len(skeleton.images) == 1 and skeleton.images[0]["src"].endswith(PIXEL)
        assert "no picture" in skeleton.text and 'id="heading"' in body.replace("section", "h2")


def assert_harmless(body):
    """No element, attribute or link of a page's body comes from HOSTILE, and its text was not interpreted."""
    tags = set(re.findall(r"<(\w+)", body))
    assert not tags & {"script", "u", "javascript", "object", "iframe", "svg", "b"}, tags
    attributes = re.findall(r"<\w[^>]*?\s(on\w+|style)=", body)
    assert set(attributes) <= {"style"} and not re.search(r'(href|src)="(javascript|https?):', body)
    text = re.sub(r"\u200b|<[^>]*>", "", body)
    assert "alert(1)" in text and "{{&lt; include" in text and "@nobody1999" in text and "title: taken" in text


def test_formulas_are_mathml(pages):
    formulas = re.findall(r"<math .*?</math>", pages["method"])
    assert len(formulas) > 30 and pages["method"].count('display="block"') >= 9
    assert "\\frac" not in Skeleton(pages["method"]).text
    assert pages["method"].count('class="equation-number"') == len(re.findall("{#eq-", (PROJECT / "method.qmd").read_text()))


def test_every_page_has_a_description_an_icon_and_menus(pages):
    for name in PAGES:
        head, body = pages[name].split("</head>")
        described = yaml.safe_load((PROJECT / f"{name}.qmd").read_text().split("---")[1])["description-meta"]
        meta = unescape(re.search('<meta name="description" content="([^"]*)">', head)[1])
        assert meta.replace("’", "'") == described and len(described) > 30
        assert 'rel="icon" type="image/svg+xml" href="data:image/svg+xml;base64,' in head and "prefers-color-scheme: dark" in head
        header = body.split("</header>")[0]
        assert header.count("<details") == 4 and header.count("aria-current") == 1
        assert header.count('class="here"') == (name != "index")


def test_the_result_says_which_number_to_look_at_first(pages):
    text = Skeleton(pages["index"]).text
    assert text.index("Which number to look at first") < text.index("All bounds of this model")
    assert "First the headline: " in text and "by betting (unseen)" in text


def test_every_table_of_bounds_has_a_verdict(pages):
    for page, tables in {
        "index": ["tbl-headline", "tbl-bounds"], "runs": ["tbl-sizes", "tbl-paper"], "tight": ["tbl-tightness"],
        "paper": ["tbl-one", "tbl-glue"], "glue": ["tbl-small"], "study": ["tbl-bits"],
        "compression": ["tbl-structured", "tbl-whole"],
    }.items():  # fmt: skip
        for table in tables:
            found = re.search(f'<figure id="{table}".*?</figure>', pages[page], re.DOTALL)[0]
            assert re.search(r"<th[^>]*>Verdict</th>", found), f"{page}: {table}"


def test_an_index_in_a_script_needs_no_server(tmp_path):
    script = tmp_path / search_index.SCRIPT
    script.parent.mkdir(parents=True)
    (tmp_path / "search.json").write_text('[{"title": "</script>"}]')
    theirs = f"if ({search_index.REFUSES}) alert(1); const r = {search_index.FETCHES};\n"
    script.write_text(theirs)
    for _ in range(2):  # the second time Quarto has kept the script
        assert search_index.embed_index(tmp_path) is None
        text = script.read_text()
        assert text.count('[{"title": "</script>"}]') == 1 and "fetch(" not in text and "file:" not in text
    script.write_text("another version")
    assert "needs a web server" in search_index.embed_index(tmp_path) and script.read_text() == "another version"
    (tmp_path / "search.json").unlink()
    assert "has no index" in search_index.embed_index(tmp_path)


def test_the_result_is_the_headline_of_the_run_named_quick(pages):
    text = Skeleton(pages["index"]).text
    assert "stored in 281 bytes" in text and "stored in 700 bytes" not in text
    for bound in filter(lambda bound: bound.nonvacuous, reading.certified(certificate())):
        scale = 1 if bound.metric == "bpd" else 100
        assert f"{reading.rounded_up(scale * bound.bound):.2f}" in text


def test_what_cannot_be_read_is_named_on_the_page(rendered, pages):
    text = Skeleton(pages["runs"]).text
    for name in ("old", "<b>strange<-b>", "incomplete", "unfinished"):
        assert str(rendered[1] / name) in text
    assert "<b>strange" not in pages["runs"]
    assert "sublora-certificate/0" in text and "not valid JSON" in text and "'bounds'" in text
    assert ">another</td>" in pages["runs"] and ">quick</a></td>" in pages["runs"]
    assert ">old</td>" not in pages["runs"]


def test_the_papers_tables_show_published_and_measured_values_and_what_was_not_run(rendered, pages):
    text = Skeleton(pages["paper"]).text
    sublora = rows(pages["paper"], "SubLoRA")
    assert [re.search(r">([\d.]+)</td>", row)[1] for row in sublora[:4]] == ["12.12", "96.41", "77.90", "58.34"]
    bits = next(b for b in reading.certified(certificate()) if (b.assumption, b.inequality) == ("iid", "hoeffding"))
    assert f">{reading.rounded_up(bits.bound):.2f}</td>" in sublora[0] and ">not run</td>" in sublora[0]
    subspace = rows(pages["paper"], "Subspace only")
    assert subspace[0].count(">not run</td>") == 6  # its certificate cannot be read, which the page says
    assert f"{rendered[0].parent.parent / 'results' / 'table1' / 'subspace'}" in text and "sublora-certificate/0" in text
    assert "sublora run params/paper/table1-sublora.yaml" in text and "days of a GPU (estimate)" in text
    assert text.count("not found in public sources") >= 4
    order = re.search(r"Measured, one run each: (.*?)\.  ?", text + "  ")[1]
    assert order.index("SubLoRA") < order.index("LoRA only") < order.index("Original model")
    assert "Original model: 720,000 bits" in text and ": vacuous" in text


def test_without_results_the_pages_say_which_command_makes_them(tmp_path):
    write_run(tmp_path / "runs", certificate())
    names = ("paper", "figures", "glue")
    index, _ = render_report(project_copy(tmp_path, names), tmp_path / "runs", quarto=None)
    paper, figures, glue = (Skeleton((index.parent / f"{name}.html").read_text("utf-8")).text for name in names)
    assert "run `make table1`" in paper and "not run" in paper
    assert "run `make table1`" in figures and "run `make figure1`" in figures and "run `make glue`" in glue


def test_one_changed_certificate_changes_its_numbers_and_no_others(rendered, pages, tmp_path):
    runs_folder = Path(shutil.copytree(rendered[1], tmp_path / "runs"))
    shutil.rmtree(runs_folder / "another")
    write_run(runs_folder, certificate("another", 900, 4.7))
    write_results(tmp_path)
    shutil.rmtree(tmp_path / "results" / "table1" / "lora")
    write_run(tmp_path / "results" / "table1", certificate("lora", 800, 4.5))
    write_notebook(tmp_path / "results" / "table1" / "lora" / "bounds.ipynb")
    kept = project_copy(tmp_path, ("index", "method", "glue", "paper", "runs"))
    index, _ = render_report(kept, runs_folder, quarto=None)
    assert ">700</td>" in pages["runs"] and ">900</td>" not in pages["runs"]
    changed = (index.parent / "runs.html").read_text("utf-8")
    assert ">900</td>" in changed and ">700</td>" not in changed

    assert rows(changed, "quick") == rows(pages["runs"], "quick") and len(rows(changed, "quick")) == 3
    assert rows(changed, "another")[0] != rows(pages["runs"], "another")[0]
    after = (index.parent / "paper.html").read_text("utf-8")
    before = pages["paper"]
    assert [row for row in rows(before, "LoRA only") if row not in rows(after, "LoRA only")]
    for name in ("SubLoRA", "Subspace only", "Original model", "Random guess"):
        assert rows(before, name) == rows(after, name) and len(rows(before, name)) >= 4
    for name in ("index", "method", "glue"):
        before, after = (Skeleton(text).text for text in (pages[name], (index.with_stem(name)).read_text("utf-8")))
        assert before == after


@pytest.fixture(scope="module")
def of_runs(tmp_path_factory):
    """(study folder, the report of two chosen runs, of which neither is called quick): the kept quick is beside them."""
    folder = tmp_path_factory.mktemp("chosen")
    write_run(folder / "runs", certificate())
    write_run(folder / "runs", certificate("mine", 700, 4.6))
    write_notebook(folder / "runs" / "mine" / "bounds.ipynb")
    write_results(folder)
    project = project_copy(folder)
    body = "[Tables](paper.qmd#sec-cost) of 3.5 go. As\n[Bits](study.qmd) say, 3.5 stays."
    (project / "added.qmd").write_text(f"---\ntitle: Added\n---\n\n{body}\n")
    chosen = [folder / "runs" / "mine", folder / "results" / "table1" / "lora"]
    index, way = render_report(project, folder / "runs", quarto=None, chosen=chosen)
    assert way == BY_PANDOC
    return folder, {path.relative_to(index.parent).as_posix(): path.read_text("utf-8") for path in index.parent.rglob("*.html")}


def test_a_report_of_chosen_runs_is_about_these_alone(of_runs):
    shown = {name: Skeleton(text) for name, text in of_runs[1].items()}
    about = ("index", "runs", "method", "certificate", "added", "notebooks/mine-bounds")
    assert set(shown) == {f"{name}.html" for name in about}
    first, every = shown["index.html"].text, of_runs[1]["runs.html"]
    assert "stored in 700 bytes" in first and "281 bytes" not in first and "runs/mine/certificate.json" in first
    assert rows(every, "lora") and "table1/lora" in shown["runs.html"].text
    assert re.search('<a href="notebooks/mine-bounds.html">mine</a></td>', every)
    assert not rows(every, "quick") and "quick" not in first and "sst2-small" not in shown["runs.html"].text


def test_nothing_in_a_report_of_chosen_runs_leads_to_what_was_left_out(of_runs):
    texts = of_runs[1]
    for name, text in texts.items():
        for link in (link for link in Skeleton(text).links if not link.startswith(("https://", "#"))):
            there = (Path(name).parent / link.partition("#")[0]).as_posix().replace("notebooks/../", "")
            assert there in texts, f"{name}: {link}"
        navigation = re.search(r"<header>.*?</header>", text, re.DOTALL)[0]
        assert Skeleton(navigation).text == "sublora Result How a bound is proven Every run The certificate"
    method, added = Skeleton(texts["method.html"]).text, Skeleton(texts["added.html"]).text
    assert "move all weights directly." in method and "What a bit buys" not in method and "Which model is better" not in method
    assert "largest change of a mean that was measured. Every" in Skeleton(texts["certificate.html"]).text
    assert "As Bits say, 3.5 stays." in added and "Tables" not in added


def test_what_is_no_finished_run_is_refused_in_one_line(of_runs, tmp_path):
    folder, texts = of_runs
    runs_folder, project = folder / "runs", folder / "report"
    write_run(tmp_path, altered(certificate("old"), "format", to="sublora-certificate/0"))
    (tmp_path / "corpora").mkdir()
    shutil.copytree(runs_folder / "mine", tmp_path / "mine")
    for other, says in (
        ("corpora", r"corpora: holds no certificate.json; give the folder of a finished run"),
        ("absent", r"absent: holds no certificate.json"),
        ("mine/certificate.json", r"holds no certificate.json"),
        ("old", "sublora-certificate/0"),
        ("mine", r"has the name of .*runs/mine, and a report tells runs by name; rename one"),
    ):
        with pytest.raises(SubloraError, match=says) as caught:
            render_report(project, runs_folder, quarto=None, chosen=[runs_folder / "mine", tmp_path / other])
        assert "\n" not in str(caught.value)
    assert (project / "_site" / "index.html").read_text("utf-8") == texts["index.html"]


@pytest.mark.skipif(find_quarto() is None, reason="Quarto is not installed: its pages are not compared with pandoc's")
def test_quarto_renders_a_report_of_chosen_runs_with_the_same_numbers(of_runs, tmp_path):
    folder, texts = of_runs
    project = Path(shutil.copytree(folder / "report", tmp_path / "report"))
    shutil.copytree(folder / "results", tmp_path / "results")
    chosen = [folder / "runs" / "mine", tmp_path / "results" / "table1" / "lora"]
    index, way = render_report(project, folder / "runs", chosen=chosen)
    assert way == BY_QUARTO and {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*.html")} == set(texts)
    for name in ("index.html", "runs.html", "method.html"):
        both = (texts[name], (index.parent / name).read_text("utf-8"))
        bodies = [re.search(r"<article>.*</article>|<main class.*</main>", text, re.DOTALL)[0] for text in both]
        assert numbers_shown(bodies[0]) == numbers_shown(bodies[1]), name


def test_menus_of_a_navigation_keep_what_is_there(tmp_path):
    pages = {text: {"href": f"{text.lower()}.qmd", "text": text} for text in ("Paper", "GLUE", "Method", "Index")}
    menus = [{"text": "Tables", "menu": [pages["Paper"]]}, {"text": "More", "menu": [pages["GLUE"], pages["Method"]]}]
    menu = [*menus, pages["Index"]]
    (tmp_path / "_quarto.yml").write_text(yaml.safe_dump({"website": {"navbar": {"left": menu}}}))
    leave_out(tmp_path)
    left = yaml.safe_load((tmp_path / "_quarto.yml").read_text())["website"]["navbar"]["left"]
    assert left == [pages["Method"], pages["Index"]]


def test_no_runs_is_one_line_and_leaves_the_site_alone(tmp_path):
    project = project_copy(tmp_path)
    (project / "_site").mkdir()
    (project / "_site" / "index.html").write_text("as it was")
    with pytest.raises(SubloraError, match="run `sublora run params/quick.yaml` first"):
        render_report(project, tmp_path / "runs", quarto=None)
    with pytest.raises(SubloraError, match="not the report's folder"):
        render_report(tmp_path, tmp_path / "runs", quarto=None)
    assert (project / "_site" / "index.html").read_text() == "as it was"


def small_project(folder, body):
    """A project of one page with the report's own frame and settings, and a run without notebooks."""
    project = project_copy(folder, ())
    settings = (project / "_quarto.yml").read_text()
    (project / "_quarto.yml").write_text(settings.replace("  pre-render: _notebooks.py\n", ""))
    (project / "index.qmd").write_text(f"---\ntitle: T\n---\n\n{body}\n")
    write_run(folder / "runs", certificate())
    return project, folder / "runs"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("```{python}\nraise ValueError('one\\ntwo')\n```", "index.qmd: cell .* failed .ValueError: one two"),
        ("See @fig-nowhere.", "@fig-nowhere does not resolve"),
        ("As shown [@nobody1999].", "citation nobody1999 not found"),
        ("::: {.panel-tabset}\n:::", "panel-tabset.* is not understood"),
        ("```{python}\n#| fig-width: 3\n1\n```", "'fig-width' is not understood"),
        ("```{python}\n#| label: fig-a\n1\n```", "cell 1 needs the options .'fig-alt', 'fig-cap', 'label'."),
        ("```{python}\n#| label: tbl-a\n#| tbl-cap: c\nx = 1\n```", "'tbl-a', has a caption but shows nothing"),
        ("```{python}\n'text'\n```", "cell 1 shows neither Markdown nor a figure"),
        ("{{< include runs.qmd >}}", "a shortcode .* is not understood"),
        ("$$a$$ {#eq-a}\n\n$$b$$ {#eq-a}", "'eq-a' is used twice"),
        ("![](https://example.org/a.png)", "would load from the network: index.html: https://example.org/a.png"),
    ],
)
def test_a_page_that_cannot_be_right_is_refused_and_nothing_is_left(tmp_path, body, complaint):
    project, runs_folder = small_project(tmp_path, body)
    with pytest.raises(SubloraError, match=complaint) as caught:
        render_report(project, runs_folder, quarto=None)
    assert "\n" not in str(caught.value)
    assert not list(project.glob("*_site*")) and not list(project.glob(".*"))


def fake_quarto(folder, script):
    program = folder / "quarto"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_quarto_is_used_where_it_is_found(tmp_path):
    project, runs_folder = small_project(tmp_path, "Text")
    script = 'test "$1" = render && mkdir "$2/_site" && echo "$SUBLORA_RUNS" > "$2/_site/index.html"'
    index, way = render_report(project, runs_folder, quarto=fake_quarto(tmp_path, script))
    assert way == BY_QUARTO and index == project / "_site" / "index.html"
    assert index.read_text() == f"{runs_folder}\n"
    before = hashlib.sha256(index.read_bytes()).digest()
    for script, complaint in [
        ("echo 'WARNING: Unable to resolve crossref @fig-a'; mkdir $2/_site; touch $2/_site/index.html", "Unable to resolve"),
        ("echo 'ERROR: no such thing'; exit 3", "no such thing .exit 3."),
        ("true", "made no _site/index.html"),
    ]:
        with pytest.raises(SubloraError, match=complaint):
            render_report(project, runs_folder, quarto=fake_quarto(tmp_path, script))
        assert hashlib.sha256(index.read_bytes()).digest() == before
    _, way = render_report(project, runs_folder, quarto=str(tmp_path / "absent"))
    assert way == BY_PANDOC


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://example.org/x.js"></script>',
        '<script src="//example.org/x.js"></script>',
        '<link rel="stylesheet" href="http://example.org/x.css">',
        "<style>@import 'https://example.org/x.css';</style>",
        '<p style="background: url(https://example.org/x.png)">',
        '<img srcset="a.png 1x, https://example.org/b.png 2x">',
        '<object data="https://example.org/x.svg"></object>',
    ],
)
def test_every_way_of_loading_is_found(tmp_path, markup):
    (tmp_path / "a.html").write_text(f"<html>{markup}</html>")
    (tmp_path / "b.html").write_text('<a href="https://example.org">fine</a><svg xmlns="http://www.w3.org/2000/svg"></svg>')
    (tmp_path / "c.css").write_text("""a { background: url("data:image/svg+xml,%3Csvg xmlns='http://x'/>") }""")
    assert len(external_loads(tmp_path)) == 1
    (tmp_path / "d.css").write_text("@font-face { src: url('https://example.org/x.woff') }")
    assert len(external_loads(tmp_path)) == 2


def test_markdown_of_quarto(tmp_path):
    project, runs_folder = small_project(
        tmp_path,
        "## One *a* {#sec-one}\n\nCosts $x_1 * y_2 * z$, not `$5 @fig-a`; see [there](runs.qmd#sec-a), @eq-b and @fig-c.\n\n"
        "$$\na\n$$ {#eq-a}\n\n$$b$$ {#eq-b}\n\n::: {.callout-note title=\"Why so\"}\nInside **bold**.\n:::\n\n"
        "@hoeffding1963 and [@lotfi2022; @serfling1974, Thm 1]\n\n```bash\n# not a heading $x$ @y\n```\n\n"
        "```{python}\n#| label: fig-c\n#| fig-cap: Caption by @eq-a.\n#| fig-alt: 'Some \"words\"'\n"
        "import matplotlib.pyplot as plt\nfigure, _ = plt.subplots(figsize=(1, 1))\nplt.close()\nfigure\n```\n",
    )
    index, _ = render_report(project, runs_folder, quarto=None)
    html = " ".join(index.read_text("utf-8").split())
    assert re.search(r'<section id="sec-one"[^>]*> <h2[^>]*>One <em>a</em></h2>', html)
    assert "<code>$5 @fig-a</code>" in html and "<em> y" not in html
    assert 'href="runs.html#sec-a"' in html
    assert re.search(r'<a href="#eq-b">Equation\s2</a> and <a href="#fig-c">Figure\s1</a>', html)
    assert re.search(r'id="eq-b" class="equation"><math .*?</math><span class="equation-number">\(2\)</span>', html)
    assert re.search(r'class="callout"> <div class="callout-title"> Why so </div> <p>Inside <strong>bold', html)
    assert re.search(r'<figure id="fig-c" class="fig"> <p><img [^>]*alt="Some &quot;words&quot;"', html)
    assert re.search(r'<figcaption>Figure\s1: Caption by <a href="#eq-a">Equation\s1</a>\.</figcaption>', html)
    assert re.search(r"Hoeffding \(<a[^>]*>1963|>Hoeffding \(1963\)</a>", html) and "Thm 1" in html
    assert "# not a heading $x$ @y" in re.sub(r"</?(span|a).*?>", "", html)
    assert re.findall(r'id="ref-(\w+)"', html) == ["hoeffding1963", "lotfi2022", "serfling1974"]


def test_the_project_uses_only_what_both_ways_understand():
    settings = yaml.safe_load((PROJECT / "_quarto.yml").read_text())
    html = settings["format"]["html"]
    themes = {"light": "default", "dark": ["default", "dark.scss"]}  # other themes load web fonts
    assert html["html-math-method"] == "mathml" and html["theme"] == themes
    assert settings["project"]["output-dir"] == "_site"
    entries = settings["website"]["navbar"]["left"]
    navigation = [page["href"] for item in entries for page in item.get("menu", [item])]
    assert sorted(navigation) == sorted(path.name for path in PROJECT.glob("*.qmd")) and len(entries) < 8
    cited = set()
    for path in PROJECT.glob("*.qmd"):
        cells = re.findall(r"^```\{python\}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
        assert all(len(cell.splitlines()) <= 8 for cell in cells), "pages only call the package"
        cited |= set(re.findall(r"@([a-z]+\d{4}\w?)", path.read_text()))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", (PROJECT / "references.bib").read_text(), re.MULTILINE))


@pytest.mark.skipif(find_quarto() is None, reason="Quarto is not installed: its pages are not compared with pandoc's")
def test_quarto_and_pandoc_show_the_same_numbers(rendered, pages, tmp_path):
    site, by_pandoc = rendered[0], shutil.move(rendered[0], tmp_path / "by_pandoc")
    try:
        _, way = render_report(site.parent, rendered[1])
        by_quarto = shutil.move(site, tmp_path / "by_quarto")
    finally:
        shutil.move(by_pandoc, site)
    assert way == BY_QUARTO and external_loads(by_quarto) == []
    for page, text in pages.items():
        both = (text, (by_quarto / f"{page}.html").read_text("utf-8"))
        bodies = [re.search(r"<article>.*</article>|<main class.*</main>", text, re.DOTALL)[0] for text in both]
        if page in NOTEBOOKS[1:]:
            assert_harmless(bodies[1])
        pandoc, quarto = map(numbers_shown, bodies)
        assert pandoc == quarto, f"{page}: {pandoc - quarto} only by pandoc, {quarto - pandoc} only by Quarto"


def numbers_shown(body):
    """How often each number stands in a page's body; a formula's source is not shown."""
    text = unescape(re.sub(r"<annotation.*?</annotation>|<[^>]*>", " ", body, flags=re.DOTALL))
    return Counter(re.findall(r"\d[\d,]*(?:\.\d+)?", text))
