// A libnvidia-ml.so.1 with two GPUs that never change but for their energy, which grows by 1.5 J a reading of GPU 1;
// or, with FAKE_NVML_WATTS in the environment, on both as time goes by. Laid out as nvml.h of CUDA has it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct memory {
  unsigned long long total, free, used;
};
struct utilization {
  unsigned gpu, memory;
};
struct pci {
  char legacy[16];
  unsigned domain, bus, device, id, subsystem;
  char bus_id[32];
};
struct field {
  unsigned id, scope;
  long long timestamp, latency;
  int type, status;
  union {
    double number;
    unsigned as_unsigned;
    unsigned long long as_long;
  } value;
};
static int gpus[2];
static unsigned long long millijoules = 500000;

static int index_of(const void* device) {
  return device == &gpus[1];
}

int nvmlInit_v2(void) {
  return 0;
}
int nvmlShutdown(void) {
  return 0;
}
const char* nvmlErrorString(int status) {
  return status ? "an error" : "success";
}
int nvmlSystemGetDriverVersion(char* text, unsigned n) {
  return snprintf(text, n, "570.86.15") < 0;
}
int nvmlDeviceGetCount_v2(unsigned* n) {
  return *n = 2, 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** device) {
  return *device = &gpus[i], i > 1;
}
int nvmlDeviceGetName(void* device, char* text, unsigned n) {
  return snprintf(text, n, "Fake H200 %d", index_of(device)) < 0;
}
int nvmlDeviceGetPciInfo_v3(void* device, struct pci* p) {
  memset(p, 0, sizeof *p);
  snprintf(p->bus_id, sizeof p->bus_id, "00000000:%s:00.0", index_of(device) ? "9B" : "1B");
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned n) {
  return snprintf(text, n, "GPU-00000000-0000-0000-0000-00000000000%d", index_of(device)) < 0;
}
// Two links to a switch, one to the other GPU, and one that is down; nothing beyond.
int nvmlDeviceGetNvLinkState(void* device, unsigned link, int* up) {
  return (void)device, *up = link != 1, link < 4 ? 0 : 2;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void* device, unsigned link, int* type) {
  return (void)device, *type = link == 3 ? 0 : 2, 0;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, struct pci* p) {
  (void)link;
  memset(p, 0, sizeof *p);
  snprintf(p->bus_id, sizeof p->bus_id, "00000000:%s:00.0", index_of(device) ? "1B" : "9B");
  return 0;
}
// GPU 0 knows the speed of each link, GPU 1 only the common one.
int nvmlDeviceGetFieldValues(void* device, int n, struct field* fields) {
  for (int i = 0; i < n; ++i) {
    const int common = fields[i].id == 90, each = fields[i].id == 164;
    fields[i].status = index_of(device) ? !common : !each;
    fields[i].value.as_unsigned = common ? 25000 : 26562;
  }
  return 0;
}
int nvmlDeviceGetMaxPcieLinkGeneration(void* device, unsigned* out) { return (void)device, *out = 5, 0; }
int nvmlDeviceGetMaxPcieLinkWidth(void* device, unsigned* out) { return *out = index_of(device) ? 8 : 16, 0; }
int nvmlDeviceGetMemoryInfo(void* device, struct memory* m) {
  (void)device;
  m->total = 150000000000ull;
  m->used = 1000000000ull;
  m->free = m->total - m->used;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void* device, struct utilization* u) {
  u->gpu = index_of(device) ? 97 : 3;
  u->memory = 40;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* out) {
  const char* watts = getenv("FAKE_NVML_WATTS");
  if (watts) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return *out = (unsigned long long)(atof(watts) * ((double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6)), 0;
  }
  if (!index_of(device)) return 3;  // not supported
  *out = millijoules;
  millijoules += 1500;
  return 0;
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  return (void)device, *milliwatts = 612500, 0;
}
int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  return (void)device, (void)sensor, *celsius = 55, 0;
}
