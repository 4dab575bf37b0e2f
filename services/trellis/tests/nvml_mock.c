/* A driver's management library without a driver, for the real binding to load.

   It says what the file named by NVML_MOCK_FILE says, read anew at every call: one "name value" a line.
   "ret.FUNCTION code" makes a function fail. The error codes (NVML_...) are given by the compiler's command
   line, from the binding's own constants. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *device_t;
typedef void *events_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct {
    device_t device;
    unsigned long long type, data;
    unsigned int gpu_instance, compute_instance;
} event_t;

static int ready, heard;

static int text_of(const char *name, char *into, size_t size)
{
    const char *path = getenv("NVML_MOCK_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256], key[128], value[128];
    int found = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%127s %127s", key, value) == 2 && !strcmp(key, name)) {
            snprintf(into, size, "%s", value);
            found = 1;
        }
    if (file) fclose(file);
    return found;
}

static long number(const char *name, long otherwise)
{
    char value[128];
    return text_of(name, value, sizeof value) ? strtol(value, NULL, 0) : otherwise;
}

static int code(const char *function)
{
    char name[160];
    snprintf(name, sizeof name, "ret.%s", function);
    return (int)number(name, number("ret", ready ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED));
}

#define CHECK do { int found = code(__func__); if (found != NVML_SUCCESS) return found; } while (0)

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    int found = (int)number("ret.nvmlInitWithFlags", number("ret", NVML_SUCCESS));
    ready = ready || found == NVML_SUCCESS;
    return found;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device)
{
    char own[128];
    CHECK;
    if (!text_of("uuid", own, sizeof own) || strcmp(own, uuid)) return NVML_ERROR_NOT_FOUND;
    *device = &ready;
    return NVML_SUCCESS;
}

int nvmlDeviceGetComputeMode(device_t device, int *mode)
{
    (void)device; CHECK; *mode = 0; return NVML_SUCCESS;
}

int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned int *value)
{
    (void)device; CHECK;
    if (sensor) return NVML_ERROR_INVALID_ARGUMENT;
    *value = (unsigned)number("temperature", 40);
    return NVML_SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t device, utilization_t *rates)
{
    (void)device; CHECK; rates->gpu = (unsigned)number("gpu", 25); rates->memory = 1; return NVML_SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device_t device, memory_t *memory)
{
    (void)device; CHECK;
    memory->total = 1000; memory->used = (unsigned long long)number("used", 300); memory->free = 700;
    return NVML_SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(device_t device, int error, int counter, unsigned long long *count)
{
    (void)device; CHECK;
    if (counter) return NVML_ERROR_INVALID_ARGUMENT;
    *count = (unsigned long long)number(error ? "ecc_uncorrected" : "ecc_corrected", 0);
    return NVML_SUCCESS;
}

int nvmlDeviceGetRetiredPages(device_t device, int cause, unsigned int *count, unsigned long long *pages)
{
    (void)device; CHECK;
    unsigned int there = (unsigned)number(cause ? "pages_double" : "pages_single", 0), room = *count;
    *count = there;
    if (!pages || room < there) return there ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    for (unsigned int i = 0; i < there; i++) pages[i] = 4096ULL * i;
    return NVML_SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(device_t device, int *pending)
{
    (void)device; CHECK; *pending = (int)number("retiring", 0); return NVML_SUCCESS;
}

int nvmlDeviceGetRemappedRows(device_t device, unsigned int *corrected, unsigned int *uncorrected,
                              unsigned int *pending, unsigned int *failed)
{
    (void)device; CHECK;
    *corrected = (unsigned)number("rows_corrected", 0);
    *uncorrected = (unsigned)number("rows_uncorrected", 0);
    *pending = (unsigned)number("rows_pending", 0);
    *failed = (unsigned)number("rows_failed", 0);
    return NVML_SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *reasons)
{
    (void)device; CHECK; *reasons = (unsigned long long)number("throttle", 1); return NVML_SUCCESS;
}

int nvmlEventSetCreate(events_t *events)
{
    CHECK; *events = &heard; return NVML_SUCCESS;
}

int nvmlDeviceRegisterEvents(device_t device, unsigned long long types, events_t events)
{
    (void)device; (void)events; CHECK;
    return types == 8 ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(events_t events, event_t *event, unsigned int milliseconds)
{
    (void)events;
    for (unsigned int waited = 0;; waited += 10) {
        CHECK;
        if (number("events", 0) > heard) {
            heard++;
            memset(event, 0, sizeof *event);
            event->type = 8;
            event->data = (unsigned long long)number("xid", 0);
            return NVML_SUCCESS;
        }
        if (waited >= milliseconds) return NVML_ERROR_TIMEOUT;
        usleep(10000);
    }
}
