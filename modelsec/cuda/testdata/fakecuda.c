// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// A library that stands in for libcuda in tests. Device memory is host memory
// under other addresses. A copy is done when somebody waits for its stream, as
// late as can be, so that memory which is used again too early shows. Every call
// counts, can be made to fail, and checks what the real one leaves undefined.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SHIFT ((uint64_t)1 << 44) // from the address of a host to that of the device
#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define NO_DEVICE 100
#define INVALID_CONTEXT 201
#define INVALID_HANDLE 400

struct block {
	char *at;
	uint64_t size;
	struct block *next;
};

struct op {
	char *to, *from;
	uint64_t size;
	int corrupt;
	struct op *next;
};

struct stream {
	struct op *first, **last;
	struct stream *next;
};

struct event {
	struct stream *of;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int depth; // of the contexts of this thread
static struct block *device, *pinned;
static struct stream *streams;
static int64_t held, pushed, events, mistakes;

static int version = 12040, devices = 2;
static uint64_t memory = (uint64_t)1 << 32;
static int corrupt, copies;

static char failing[64];
static int failing_nth, failing_code, sticky;
static struct {
	char name[64];
	int count;
} calls[64];

// What tests ask for.

void fake_set(int v, int n, uint64_t m) { version = v, devices = n, memory = m; }

void fake_corrupt(int nth) { corrupt = nth; }

// The nth call of a function fails, and with stick all after it, of any.
void fake_fail(const char *name, int nth, int code, int stick) {
	strncpy(failing, name, sizeof failing - 1);
	failing_nth = nth, failing_code = code, sticky = stick ? -1 : 0;
}

int fake_calls(const char *name) {
	for (int i = 0; i < 64; i++)
		if (!strcmp(calls[i].name, name)) return calls[i].count;
	return 0;
}

void fake_live(int64_t *out) {
	pthread_mutex_lock(&lock);
	memset(out, 0, 7 * sizeof *out);
	for (struct block *b = device; b; b = b->next) out[0] += b->size;
	for (struct block *b = pinned; b; b = b->next) out[1] += b->size;
	for (struct stream *s = streams; s; s = s->next) out[2]++;
	out[3] = events, out[4] = held, out[5] = pushed, out[6] = mistakes;
	pthread_mutex_unlock(&lock);
}

// The driver.

static int enter(const char *name) {
	pthread_mutex_lock(&lock);
	int i = 0;
	while (calls[i].name[0] && strcmp(calls[i].name, name)) i++;
	strncpy(calls[i].name, name, sizeof calls[i].name - 1);
	calls[i].count++;
	if (sticky > 0) return sticky;
	if (strcmp(failing, name) || calls[i].count != failing_nth) return 0;
	if (sticky < 0) sticky = failing_code;
	return failing_code;
}

static int leave(int code) {
	pthread_mutex_unlock(&lock);
	return code;
}

#define ENTER \
	int failed = enter(__func__); \
	if (failed) return leave(failed)
#define ENTER_CONTEXT \
	ENTER; \
	if (depth == 0) return leave(INVALID_CONTEXT)

static int take(struct block **list, char *at) {
	for (; *list; list = &(*list)->next) {
		if ((*list)->at != at) continue;
		struct block *b = *list;
		// Memory that a copy still needs.
		for (struct stream *s = streams; s; s = s->next)
			for (struct op *o = s->first; o; o = o->next)
				if ((o->to >= at && o->to < at + b->size) || (o->from >= at && o->from < at + b->size)) mistakes++;
		for (uint64_t i = 0; i < b->size; i++)
			if (b->at[i]) { // plaintext
				mistakes++;
				break;
			}
		*list = b->next;
		memset(b->at, 0xdd, b->size);
		free(b->at);
		free(b);
		return 0;
	}
	mistakes++;
	return INVALID_VALUE;
}

static char *give(struct block **list, uint64_t size) {
	struct block *b = malloc(sizeof *b);
	b->at = aligned_alloc(4096, (size + 4095) & ~(uint64_t)4095), b->size = size, b->next = *list;
	memset(b->at, 0xee, size);
	*list = b;
	return b->at;
}

static int within(struct block *b, char *at, uint64_t size) {
	for (; b; b = b->next)
		if (at >= b->at && at + size <= b->at + b->size) return 1;
	mistakes++;
	return 0;
}

static int known(struct stream *s) {
	for (struct stream *k = streams; k; k = k->next)
		if (k == s) return 1;
	mistakes++;
	return 0;
}

static void finish(struct stream *s) {
	while (s->first) {
		struct op *o = s->first;
		memcpy(o->to, o->from, o->size);
		if (o->corrupt) o->to[o->size / 2] ^= 1;
		s->first = o->next;
		free(o);
	}
	s->last = &s->first;
}

int cuInit(unsigned flags) {
	ENTER;
	return leave(devices ? 0 : NO_DEVICE);
}

int cuDriverGetVersion(int *v) {
	ENTER;
	*v = version;
	return leave(0);
}

int cuGetErrorName(int code, const char **name) {
	switch (code) {
	case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
	case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; return 0;
	case 700: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; return 0;
	}
	*name = 0;
	return INVALID_VALUE;
}

int cuGetErrorString(int code, const char **text) {
	*text = "a sentence of the driver";
	return code > 1000;
}

int cuDeviceGetCount(int *n) {
	ENTER;
	*n = devices;
	return leave(0);
}

int cuDeviceGet(int *d, int ordinal) {
	ENTER;
	*d = ordinal + 70;
	return leave(ordinal < devices ? 0 : 101);
}

int cuDeviceGetName(char *name, int length, int d) {
	ENTER;
	strncpy(name, "Fake GPU", length);
	return leave(0);
}

int cuDevicePrimaryCtxRetain(uintptr_t *context, int d) {
	ENTER;
	held++;
	*context = 7000 + d;
	return leave(0);
}

int cuDevicePrimaryCtxRelease_v2(int d) {
	ENTER;
	if (held-- == 0) mistakes++;
	return leave(0);
}

int cuCtxPushCurrent_v2(uintptr_t context) {
	ENTER;
	if (context < 7000) return leave(INVALID_CONTEXT);
	if (held == 0) mistakes++;
	depth++, pushed++;
	return leave(0);
}

int cuCtxPopCurrent_v2(uintptr_t *context) {
	ENTER_CONTEXT;
	depth--, pushed--;
	return leave(0);
}

int cuMemAlloc_v2(uint64_t *p, size_t size) {
	ENTER_CONTEXT;
	if (size == 0) return leave(INVALID_VALUE);
	uint64_t used = 0;
	for (struct block *b = device; b; b = b->next) used += b->size;
	if (size > memory - used) return leave(OUT_OF_MEMORY);
	*p = (uint64_t)(uintptr_t)give(&device, size) + SHIFT;
	return leave(0);
}

int cuMemsetD8_v2(uint64_t p, unsigned char value, size_t size) {
	ENTER_CONTEXT;
	char *at = (char *)(uintptr_t)(p - SHIFT);
	if (!within(device, at, size)) return leave(INVALID_VALUE);
	memset(at, value, size);
	return leave(0);
}

int cuMemFree_v2(uint64_t p) {
	ENTER_CONTEXT;
	return leave(take(&device, (char *)(uintptr_t)(p - SHIFT)));
}

int cuMemHostAlloc(void **p, size_t size, unsigned flags) {
	ENTER_CONTEXT;
	*p = give(&pinned, size);
	return leave(0);
}

int cuMemFreeHost(void *p) {
	ENTER_CONTEXT;
	return leave(take(&pinned, p));
}

int cuStreamCreate(struct stream **s, unsigned flags) {
	ENTER_CONTEXT;
	*s = calloc(1, sizeof **s);
	(*s)->last = &(*s)->first;
	(*s)->next = streams;
	streams = *s;
	return leave(0);
}

int cuStreamSynchronize(struct stream *s) {
	ENTER_CONTEXT;
	if (!known(s)) return leave(INVALID_HANDLE);
	finish(s);
	return leave(0);
}

int cuStreamDestroy_v2(struct stream *s) {
	ENTER_CONTEXT;
	if (!known(s)) return leave(INVALID_HANDLE);
	if (s->first) mistakes++;
	struct stream **at = &streams;
	while (*at != s) at = &(*at)->next;
	*at = s->next;
	free(s);
	return leave(0);
}

int cuEventCreate(struct event **e, unsigned flags) {
	ENTER_CONTEXT;
	*e = calloc(1, sizeof **e);
	events++;
	return leave(0);
}

int cuEventRecord(struct event *e, struct stream *s) {
	ENTER_CONTEXT;
	if (!known(s)) return leave(INVALID_HANDLE);
	e->of = s;
	return leave(0);
}

int cuEventSynchronize(struct event *e) {
	ENTER_CONTEXT;
	if (!e->of) mistakes++;
	else finish(e->of);
	return leave(0);
}

int cuEventDestroy_v2(struct event *e) {
	ENTER_CONTEXT;
	free(e);
	events--;
	return leave(0);
}

static int later(struct stream *s, char *to, char *from, uint64_t size, int bad) {
	struct op *o = calloc(1, sizeof *o);
	o->to = to, o->from = from, o->size = size, o->corrupt = bad;
	*s->last = o;
	s->last = &o->next;
	return 0;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, char *from, size_t size, struct stream *s) {
	ENTER_CONTEXT;
	char *at = (char *)(uintptr_t)(to - SHIFT);
	if (!known(s) || !within(device, at, size) || !within(pinned, from, size)) return leave(INVALID_VALUE);
	return leave(later(s, at, from, size, ++copies == corrupt));
}

int cuMemcpyDtoHAsync_v2(char *to, uint64_t from, size_t size, struct stream *s) {
	ENTER_CONTEXT;
	char *at = (char *)(uintptr_t)(from - SHIFT);
	if (!known(s) || !within(device, at, size) || !within(pinned, to, size)) return leave(INVALID_VALUE);
	return leave(later(s, to, at, size, 0));
}
