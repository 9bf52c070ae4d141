/* SPDX-License-Identifier: Apache-2.0 */
/* An external TFLite delegate that behaves as its option `mode` says; most modes misbehave.
 *
 * The declarations are the beginnings of TFLite's C structures (tensorflow/lite/core/c/common.h), which have
 * kept their layout since external delegates exist.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, ERROR = 1, FULLY_CONNECTED = 9, TANH = 28, BATCH_MATMUL = 126 };

typedef struct { int size; int data[]; } IntArray;
typedef struct { float scale; int32_t zero_point; } Quantization;
typedef struct {
  int type;
  void *data;
  IntArray *dims;
  Quantization params;
  int allocation;
  size_t bytes;
  char rest[64];
} Tensor;
typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  char rest[32];
} Node;
typedef struct Context Context;
typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *rest[6];
} Registration;
typedef struct Delegate {
  void *data;
  int (*prepare)(Context *, struct Delegate *);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *builder;
} Delegate;
typedef struct { Delegate *delegate; IntArray *nodes, *inputs, *outputs; } Params;
struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  int (*ResizeTensor)(Context *, void *, IntArray *);
  void (*ReportError)(Context *, const char *, ...);
  int (*AddTensors)(Context *, int, int *);
  int (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context *, Registration, const IntArray *, Delegate *);
};

/* One node a delegate took, as it was. */
typedef struct { int node; Node copy; Registration registration; } Taken;

/* A delegate: how it behaves, and what it took. */
typedef struct { char mode[32]; int count; Taken taken[256]; } State;

/* A kernel: its delegate, and the first and the last of the nodes it stands for. */
typedef struct { State *state; Taken *taken, *last; } Kernel;

static int is(const State *state, const char *mode) { return strcmp(state->mode, mode) == 0; }

static Tensor *tensor(Context *context, int index) { return &context->tensors[index]; }

static void *init(Context *context, const char *buffer, size_t length) {
  const Params *params = (const Params *)buffer;
  Kernel *kernel = calloc(1, sizeof(Kernel));
  (void)context, (void)length;
  kernel->state = params->delegate->data;
  for (int i = 0; i < kernel->state->count; i++) {
    Taken *taken = &kernel->state->taken[i];
    if (taken->node == params->nodes->data[0]) kernel->taken = taken;
    if (taken->node == params->nodes->data[params->nodes->size - 1]) kernel->last = taken;
  }
  return kernel;
}

static void finish(Context *context, void *kernel) { (void)context, free(kernel); }

static int prepare(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  if (!is(kernel->state, "slow")) return OK;
  return kernel->taken->registration.prepare(context, &kernel->taken->copy);
}

static int invoke(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  State *state = kernel->state;
  if (is(state, "hang-run")) for (;;) sleep(1);
  if (is(state, "crash-run")) *(volatile int *)16 = 1;
  if (is(state, "fail-run")) return ERROR;
  if (is(state, "fail-later") && getenv("DELEGATE_FAILS")) return ERROR;
  if (is(state, "slow")) {
    usleep(20000);
    return kernel->taken->registration.invoke(context, &kernel->taken->copy);
  }
  if (is(state, "copy") || is(state, "fail-later")) {
    Tensor *from = tensor(context, kernel->taken->copy.inputs->data[0]);
    Tensor *to = tensor(context, kernel->last->copy.outputs->data[0]);
    memcpy(to->data, from->data, to->bytes);
    return OK;
  }
  for (int i = 0; i < node->outputs->size; i++) { /* garbage */
    Tensor *made = tensor(context, node->outputs->data[i]);
    float *values = made->data;
    for (size_t k = 0; k < made->bytes / sizeof(float); k++) values[k] = (float)(k % 7) - 3.0f;
  }
  return OK;
}

/* Slow stands in for tanh by the engine's own kernel; copy for products with the identity, in no time. */
static int wants(const State *state, const Registration *registration, const Node *node, Context *context) {
  int code = registration->builtin_code;
  if (is(state, "idle")) return 0;
  if (is(state, "slow")) return code == TANH;
  if (is(state, "copy") || is(state, "fail-later"))
    return (code == FULLY_CONNECTED || code == BATCH_MATMUL) && node->inputs->size > 1 &&
           tensor(context, node->inputs->data[0])->bytes == tensor(context, node->outputs->data[0])->bytes;
  return 1;
}

static int take(Context *context, Delegate *delegate) {
  State *state = delegate->data;
  IntArray *plan, *nodes;
  Registration kernel = {.init = init, .free = finish, .prepare = prepare, .invoke = invoke, .version = 1};
  if (is(state, "refuse-graph")) return ERROR;
  if (context->GetExecutionPlan(context, &plan) != OK) return ERROR;
  nodes = calloc(1, sizeof(IntArray) + plan->size * sizeof(int));
  state->count = 0;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    context->GetNodeAndRegistration(context, plan->data[i], &node, &registration);
    if (!wants(state, registration, node, context)) continue;
    nodes->data[nodes->size++] = plan->data[i];
    if (state->count < 256) {
      Taken *taken = &state->taken[state->count++];
      taken->node = plan->data[i];
      taken->copy = *node;
      taken->registration.prepare = registration->prepare;
      taken->registration.invoke = registration->invoke;
    }
  }
  int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, nodes, delegate);
  free(nodes);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
  State *state = calloc(1, sizeof(State));
  for (size_t i = 0; i < count; i++)
    if (strcmp(keys[i], "mode") == 0) strncpy(state->mode, values[i], sizeof state->mode - 1);
  if (is(state, "refuse")) {
    if (report) report("no such device");
    return NULL;
  }
  if (is(state, "hang")) for (;;) sleep(1);
  if (is(state, "crash")) *(volatile int *)16 = 1;
  Delegate *made = calloc(1, sizeof(Delegate));
  made->data = state;
  made->prepare = take;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) {
  if (delegate == NULL) return; /* the engine hands back what it was refused */
  free(delegate->data);
  free(delegate);
}
