"""Helm's own engine, which is a library here. What it does is judged elsewhere.

helm.py render CHART CASES RESULT
    lints and renders the chart for value sets, and checks each object by the schemas of Kubernetes
helm.py release CHART KUBECONFIG STORAGE
    does what lines of its standard input say, as JSON: {"do": "install", "values": …}, or upgrade, or uninstall; and answers
    each with a line. STORAGE: where Helm notes releases, `secret`, or `memory`, for as long as this runs
"""

import functools
import json
import sys

import helm_python as helm
import kubernetes_validate as schemas
import yaml

RELEASE = {"name": "gw", "namespace": "mesh"}
# The oldest that the chart takes, and the newest that there are schemas of.
VERSIONS = ["1.30", schemas.latest_version()]
# Kinds of others, which Kubernetes has no schemas of.
FOREIGN = {"ServiceMonitor"}

schemas.utils.schema_contents = functools.cache(schemas.utils.schema_contents)


def merged(base, over):
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


@functools.cache
def problems(text):
    """What the schemas say against an object, as JSON."""
    found, thing = [], json.loads(text)
    if thing["kind"] in FOREIGN:
        return found
    for version in VERSIONS:
        try:
            schemas.validate(thing, version, strict=True)
        except (schemas.ValidationError, schemas.SchemaNotFoundError) as error:
            where = "/".join(str(part) for part in getattr(error, "absolute_path", []))
            found.append(f"{version}: {thing['kind']}: {where}: {error.message}")
    return found


def rendered(chart, values):
    try:
        templates = chart.render(values, **RELEASE)
    except (helm.HelmValuesError, helm.HelmRenderError) as error:
        return {"error": str(error)}
    texts = {path.split("/", 1)[1]: text for path, text in templates.items()}
    notes = texts.pop("templates/NOTES.txt")
    things = [thing for text in texts.values() for thing in yaml.load_all(text, yaml.CSafeLoader) if thing]
    return {
        "templates": sorted(path for path, text in texts.items() if text.strip()),
        "objects": things,
        "notes": notes,
        "problems": sorted({problem for thing in things for problem in problems(json.dumps(thing))}),
    }


def effect(case, over, values):
    return case(merged(over, values)) | {"without": case(over)}


def render(folder, cases, result):
    with open(cases, encoding="utf-8") as file:
        cases = yaml.load(file, yaml.CSafeLoader)
    base = cases["base"]
    # What nobody has filled in yet is linted too: a person who writes a values file begins there.
    lint = [message for values in ({}, base) for message in helm.lint(folder, values, strict=True)["messages"]]
    with helm.Chart.load(folder) as chart:
        case = lambda values: {"values": values, **rendered(chart, merged(base, values))}
        answer = {
            "helm": helm.helm_sdk_version(),
            "versions": VERSIONS,
            "lint": lint,
            "metadata": chart.metadata,
            "defaults": chart.values,
            "schema": chart.schema,
            "base": case({}),
            "sets": {name: case(values) for name, values in cases["sets"].items()},
            "effects": [entry | effect(case, entry.get("over", {}), entry["set"]) for entry in cases["effects"]],
            "refused": [entry | case(entry["set"]) for entry in cases["refused"]],
        }
    with open(result, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def release(folder, kubeconfig, storage):
    options = {"kubeconfig_path": kubeconfig, "namespace": RELEASE["namespace"], "storage_driver": storage}
    with helm.Config(**options) as config:
        for line in sys.stdin:
            order = json.loads(line)
            try:
                match order["do"]:
                    case "install":
                        done = config.install(folder, RELEASE["name"], order["values"], create_namespace=True)
                    case "upgrade":
                        done = config.upgrade(folder, RELEASE["name"], order["values"])
                    case "uninstall":
                        done = config.uninstall(RELEASE["name"])
                answer = {"done": done}
            except helm.HelmError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)


{"render": render, "release": release}[sys.argv[1]](*sys.argv[2:])
