# What is derived from the chart, and the acceptance run for the owner of a GPU.
.PHONY: chart-docs dashboards dashboard-pictures gpu-acceptance

RELEASE ?= sn17
NAMESPACE ?= default
ACCEPT ?=
WATCH ?=
LOCAL ?=
RESULT ?= gpu-acceptance-$(shell date -u +%Y%m%dT%H%M%SZ).json

chart-docs: sync ## Write the chart's README, values.schema.json and golden manifests anew
	@.venv/bin/python dev/tools/chart/values_docs.py
	@SN17_UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/chart/test_chart_golden.py

dashboards: sync ## Write the chart's dashboards anew
	@.venv/bin/python -m sn17_dashboards write

dashboard-pictures: sync tools ## Draw the dashboards in docs/ from a run of the real services
	@SN17_PICTURES=1 SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest tests/chart/test_dashboards_live.py

gpu-acceptance: MINER = -n $(NAMESPACE) -l app.kubernetes.io/instance=$(RELEASE),app.kubernetes.io/component=miner
ifneq ($(LOCAL),)
gpu-acceptance: sync ## 20 generations and 50 submissions on a release with a GPU, in one RESULT file (RELEASE, NAMESPACE; LOCAL=torch: no cluster)
	@.venv/bin/sn17 accept --local $(LOCAL) --record $(RESULT) $(ACCEPT)
else
gpu-acceptance: RESULT := $(RESULT)
gpu-acceptance: sync
	@set -e; back() { kubectl scale statefulset $(MINER) --replicas=1; }; trap back EXIT; \
	kubectl scale statefulset $(MINER) --replicas=0; kubectl wait pod $(MINER) --for=delete --timeout=10m; \
	.venv/bin/sn17 accept --release $(RELEASE) --namespace $(NAMESPACE) --record $(RESULT) $(ACCEPT)
	@kubectl rollout status statefulset $(MINER) --timeout=10m
	@.venv/bin/sn17 watch --release $(RELEASE) --namespace $(NAMESPACE) --submissions 50 --record $(RESULT) $(WATCH)
endif
