/* An NVML of one GPU that tells its UUID and nothing else. Unlike a library written in Rust, whose runtime leaves
   destructors with the thread that called it, nothing keeps this one mapped once it is closed. */

#include <string.h>

typedef int nvml_return;
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7 };

static const char uuid[] = "GPU-11111111-2222-3333-4444-555555555555";
static int the_gpu;

nvml_return nvmlInit_v2(void) { return SUCCESS; }

nvml_return nvmlShutdown(void) { return SUCCESS; }

nvml_return nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 1;
    return SUCCESS;
}

nvml_return nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &the_gpu;
    return index == 0 ? SUCCESS : INVALID_ARGUMENT;
}

nvml_return nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    (void)device;
    if (size < sizeof uuid) return INSUFFICIENT_SIZE;
    memcpy(text, uuid, sizeof uuid);
    return SUCCESS;
}

nvml_return nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 123000;
    return SUCCESS;
}
