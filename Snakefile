# The engine of `python -m adlib batch FILE`, which writes the plan that is read here (adlib/batch/engine.py) and calls:
#     snakemake --snakefile Snakefile --config plan=PLAN --cores N
# Targets are executed notebooks; whether a run is whole is decided by its own folder (see adlib/batch).
import json
import sys
from pathlib import Path

PLAN = json.loads(Path(config["plan"]).read_text(encoding="utf-8"))
ITEMS, EXECUTED = PLAN["items"], PLAN["executed"]
# exec: a signal to the job reaches Python, not a shell that would end before it.
COMMAND = "exec {sys.executable:q} -m adlib.batch.notebook {config[plan]:q} {wildcards.item:q} > {log:q} 2>&1"


def resource(name):
    return lambda wildcards: ITEMS[wildcards.item]["resources"][name]


wildcard_constraints:
    item="[^/]+",


localrules:
    all,


rule all:
    input:
        [item["sheet"] for item in ITEMS.values()],


rule run:
    output:
        update(EXECUTED + "/runs/{item}.ipynb"),
    log:
        EXECUTED + "/logs/{item}.out",
    threads: resource("threads")
    resources:
        gpu=resource("gpu"),
        mem_mb=resource("mem_mb"),
        runtime=resource("runtime"),
    shell:
        COMMAND


rule report:
    input:
        lambda wildcards: [ITEMS[wildcards.item]["notebook"], *ITEMS[wildcards.item]["needs"]],
    output:
        update(EXECUTED + "/{item}.ipynb"),
    log:
        EXECUTED + "/logs/{item}.out",
    threads: resource("threads")
    resources:
        gpu=resource("gpu"),
        mem_mb=resource("mem_mb"),
        runtime=resource("runtime"),
    shell:
        COMMAND
