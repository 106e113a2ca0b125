/* A driver's management library with one made-up H100 80GB, for the real binding to load by its real name.
 *
 * It catches what a fake in Python cannot: a structure with another layout, a symbol that is not there, a wrong type of
 * argument. Structures and numbers are those of NVIDIA's nvml.h (documented in the NVML API reference); memory, names and
 * placements those of control_plane/mig/data/mig_profiles.toml. State lives as long as the process.
 */

#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, IN_USE = 19,
       INSUFFICIENT_RESOURCES = 23 };
enum { MEMORY_SLICES = 8, COMPUTE_SLICES = 7, MOST = 16 };

typedef struct { unsigned start, size; } Placement;
typedef struct { void *device; unsigned id, profileId; Placement placement; } GpuInstanceInfo;
typedef struct {
    unsigned version, id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount, decoderCount,
        encoderCount, jpegCount, ofaCount;
    unsigned long long memorySizeMB;
    char name[96];
} GpuInstanceProfileInfo;
typedef struct {
    unsigned version, id, sliceCount, instanceCount, multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount,
        sharedEncoderCount, sharedJpegCount, sharedOfaCount;
    char name[96];
} ComputeInstanceProfileInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned pid; unsigned long long usedGpuMemory; unsigned gpuInstanceId, computeInstanceId; } ProcessInfo;

typedef struct { unsigned number, id, g, size, most, sm, mb, starts[8], places; const char *name; } Profile;

static const Profile PROFILES[] = {
    {0x0, 19, 1, 1, 7, 16, 9856, {0, 1, 2, 3, 4, 5, 6}, 7, "MIG 1g.10gb"},
    {0x1, 14, 2, 2, 3, 32, 20096, {0, 2, 4}, 3, "MIG 2g.20gb"},
    {0x2, 9, 3, 4, 2, 60, 40448, {0, 4}, 2, "MIG 3g.40gb"},
    {0x3, 5, 4, 4, 1, 64, 40448, {0}, 1, "MIG 4g.40gb"},
    {0x4, 0, 7, 8, 1, 132, 81152, {0}, 1, "MIG 7g.80gb"},
    {0x9, 15, 1, 2, 4, 26, 20096, {0, 2, 4, 6}, 4, "MIG 1g.20gb"},
};
enum { COUNT = sizeof PROFILES / sizeof PROFILES[0] };

/* Handles are addresses within these. */
static struct Instance { int there, compute; unsigned id, computeProfile; const Profile *profile; unsigned start; } instances[MOST];
static int card, mode;

static const Profile *with_id(unsigned id) {
    for (int i = 0; i < COUNT; i++) if (PROFILES[i].id == id) return &PROFILES[i];
    return NULL;
}

static struct Instance *instance_of(void *handle) {
    struct Instance *found = handle;
    return found >= instances && found < instances + MOST && found->there ? found : NULL;
}

static int overlaps(unsigned start, unsigned size) {
    for (int i = 0; i < MOST; i++)
        if (instances[i].there && start < instances[i].start + instances[i].profile->size && instances[i].start < start + size)
            return 1;
    return 0;
}

static unsigned compute_slices(void) {
    unsigned taken = 0;
    for (int i = 0; i < MOST; i++) if (instances[i].there) taken += instances[i].profile->g;
    return taken;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case IN_USE: return "In use by another client";
    case INSUFFICIENT_RESOURCES: return "Insufficient Resources";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &card; return index ? INVALID_ARGUMENT : SUCCESS; }

int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    struct Instance *mig = instance_of(device);
    if (mig) snprintf(text, size, "MIG-00000000-0000-0000-0000-%012u", mig->id);
    else snprintf(text, size, "GPU-11111111-2222-3333-4444-555555555555");
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size) { (void)device; snprintf(text, size, "Library H100 80GB HBM3"); return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { (void)device; *major = 9; *minor = 0; return SUCCESS; }

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    (void)device;
    memory->total = memory->free = 81559ULL << 20;
    memory->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, ProcessInfo *found) {
    struct Instance *mig = instance_of(device);
    unsigned room = *count, running = mig && mig->profile->id == 0 ? 1 : 0; /* a 7g is always in use here */
    *count = running;
    if (!running) return SUCCESS;
    if (!found || room < running) return INSUFFICIENT_SIZE;
    memset(found, 0, sizeof *found);
    found->pid = 4711;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) { (void)device; *current = *pending = mode; return SUCCESS; }

int nvmlDeviceSetMigMode(void *device, unsigned wanted, int *status) {
    (void)device;
    *status = (int)wanted != mode && compute_slices() ? IN_USE : SUCCESS;
    if (*status == SUCCESS) mode = wanted;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { (void)device; *count = COMPUTE_SLICES; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **mig) {
    (void)device;
    /* As a driver's, the handles have gaps: index is a place, not a rank. */
    if (index >= COMPUTE_SLICES || !instances[index].there || !instances[index].compute) return NOT_FOUND;
    *mig = &instances[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *mig, unsigned *id) {
    struct Instance *found = instance_of(mig);
    if (!found) return NOT_FOUND;
    *id = found->id;
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceProfileInfoV(void *device, unsigned number, GpuInstanceProfileInfo *info) {
    (void)device;
    for (int i = 0; i < COUNT; i++) {
        const Profile *it = &PROFILES[i];
        if (it->number != number) continue;
        if (info->version >> 24 != 2 || (info->version & 0xffffff) != sizeof *info) return INVALID_ARGUMENT;
        info->id = it->id;
        info->sliceCount = it->g;
        info->instanceCount = it->most;
        info->multiprocessorCount = it->sm;
        info->memorySizeMB = it->mb;
        snprintf(info->name, sizeof info->name, "%s", it->name);
        return SUCCESS;
    }
    return NOT_SUPPORTED;
}

int nvmlDeviceGetGpuInstancePossiblePlacements_v2(void *device, unsigned id, Placement *places, unsigned *count) {
    (void)device;
    const Profile *it = with_id(id);
    if (!it) return INVALID_ARGUMENT;
    *count = it->places;
    for (unsigned i = 0; places && i < it->places; i++) places[i] = (Placement){it->starts[i], it->size};
    return SUCCESS;
}

int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned id, const Placement *wanted, void **made) {
    (void)device;
    const Profile *it = with_id(id);
    unsigned known = 0;
    if (!mode) return NOT_SUPPORTED;
    if (!it || wanted->size != it->size) return INVALID_ARGUMENT;
    for (unsigned i = 0; i < it->places; i++) known |= it->starts[i] == wanted->start;
    if (!known) return INVALID_ARGUMENT;
    if (overlaps(wanted->start, wanted->size) || compute_slices() + it->g > COMPUTE_SLICES) return INSUFFICIENT_RESOURCES;
    for (int i = 0; i < MOST; i++) {
        if (instances[i].there) continue;
        instances[i] = (struct Instance){1, 0, (unsigned)i + 1, 0, it, wanted->start};
        *made = &instances[i];
        return SUCCESS;
    }
    return INSUFFICIENT_RESOURCES;
}

int nvmlDeviceGetGpuInstances(void *device, unsigned id, void **found, unsigned *count) {
    (void)device;
    *count = 0;
    for (int i = 0; i < MOST; i++)
        if (instances[i].there && instances[i].profile->id == id) found[(*count)++] = &instances[i];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **found) {
    (void)device;
    for (int i = 0; i < MOST; i++)
        if (instances[i].there && instances[i].id == id) { *found = &instances[i]; return SUCCESS; }
    return NOT_FOUND;
}

int nvmlGpuInstanceGetInfo(void *handle, GpuInstanceInfo *info) {
    struct Instance *it = instance_of(handle);
    if (!it) return NOT_FOUND;
    *info = (GpuInstanceInfo){&card, it->id, it->profile->id, {it->start, it->profile->size}};
    return SUCCESS;
}

int nvmlGpuInstanceGetComputeInstanceProfileInfoV(void *handle, unsigned number, unsigned engine, ComputeInstanceProfileInfo *info) {
    static const unsigned slices[] = {1, 2, 3, 4, 7};
    struct Instance *it = instance_of(handle);
    (void)engine;
    if (!it || number > 4 || slices[number] > it->profile->g) return NOT_SUPPORTED;
    if (info->version >> 24 != 2 || (info->version & 0xffffff) != sizeof *info) return INVALID_ARGUMENT;
    info->id = number;
    info->sliceCount = slices[number];
    info->instanceCount = it->profile->g / slices[number];
    return SUCCESS;
}

int nvmlGpuInstanceCreateComputeInstance(void *handle, unsigned id, void **made) {
    struct Instance *it = instance_of(handle);
    if (!it) return NOT_FOUND;
    if (it->compute) return INSUFFICIENT_RESOURCES;
    it->compute = 1;
    it->computeProfile = id;
    *made = it;
    return SUCCESS;
}

int nvmlGpuInstanceGetComputeInstances(void *handle, unsigned id, void **found, unsigned *count) {
    struct Instance *it = instance_of(handle);
    if (!it) return NOT_FOUND;
    *count = it->compute && it->computeProfile == id;
    if (*count) found[0] = it;
    return SUCCESS;
}

int nvmlComputeInstanceDestroy(void *handle) {
    struct Instance *it = instance_of(handle);
    if (!it || !it->compute) return NOT_FOUND;
    if (it->profile->id == 0) return IN_USE;
    it->compute = 0;
    return SUCCESS;
}

int nvmlGpuInstanceDestroy(void *handle) {
    struct Instance *it = instance_of(handle);
    if (!it) return NOT_FOUND;
    if (it->compute) return IN_USE;
    it->there = 0;
    return SUCCESS;
}
