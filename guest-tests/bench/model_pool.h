/* SPDX-License-Identifier: GPL-2.0 */
/* A pool of threads in user space: a queue, a mutex and two condition variables. */
#ifndef BENCH_MODEL_POOL_H
#define BENCH_MODEL_POOL_H

#include <pthread.h>

#include "model.h"

#define POOL_STACK	65536

/* last: of the queue; the calls of one submission are beside each other in memory. */
struct pool {
	pthread_mutex_t mutex;
	pthread_cond_t wanted, ended;
	struct call **queue;
	unsigned int first, last, size, done;
	bool over;
	unsigned int threads;
	pthread_t *ids;
};

static __thread struct pool *pool;

static void *pool_thread(void *argument)
{
	struct pool *own = argument;
	struct call *call;

	pthread_mutex_lock(&own->mutex);
	for (;;) {
		while (own->first == own->last && !own->over)
			pthread_cond_wait(&own->wanted, &own->mutex);
		if (own->first == own->last)
			break;
		call = own->queue[own->first++ % own->size];
		pthread_mutex_unlock(&own->mutex);
		call->value = make_call(call);
		pthread_mutex_lock(&own->mutex);
		own->done++;
		pthread_cond_signal(&own->ended);
	}
	pthread_mutex_unlock(&own->mutex);
	return NULL;
}

/* As many threads as there are processors, or as there will be calls that sleep. */
static void pool_open(unsigned int count, unsigned int sleepers)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_attr_t small;

	pool = calloc(1, sizeof(*pool));
	if (!pool)
		fail("calloc");
	pthread_mutex_init(&pool->mutex, NULL);
	pthread_cond_init(&pool->wanted, NULL);
	pthread_cond_init(&pool->ended, NULL);
	pool->size = count;
	pool->threads = sleepers > processors ? sleepers : processors;
	pool->queue = calloc(count, sizeof(*pool->queue));
	pool->ids = calloc(pool->threads, sizeof(*pool->ids));
	if (!pool->queue || !pool->ids)
		fail("calloc");
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, POOL_STACK);
	for (unsigned int at = 0; at < pool->threads; at++) {
		errno = pthread_create(&pool->ids[at], &small, pool_thread, pool);
		if (errno)
			fail("pthread_create");
	}
	pthread_attr_destroy(&small);
}

static void pool_submit(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++) {
		pthread_mutex_lock(&pool->mutex);
		pool->queue[pool->last++ % pool->size] = &calls[at];
		pthread_cond_signal(&pool->wanted);
		pthread_mutex_unlock(&pool->mutex);
	}
}

static void pool_complete(struct call *calls, unsigned int count)
{
	(void)calls;
	pthread_mutex_lock(&pool->mutex);
	while (pool->done < count)
		pthread_cond_wait(&pool->ended, &pool->mutex);
	pool->done -= count;
	pthread_mutex_unlock(&pool->mutex);
}

static void pool_close(void)
{
	pthread_mutex_lock(&pool->mutex);
	pool->over = true;
	pthread_cond_broadcast(&pool->wanted);
	pthread_mutex_unlock(&pool->mutex);
	for (unsigned int at = 0; at < pool->threads; at++)
		pthread_join(pool->ids[at], NULL);
	free(pool->ids);
	free(pool->queue);
	free(pool);
}

static const struct model thread_pool = {
	"thread pool", can_all, pool_open, pool_submit, pool_complete, pool_close,
};

#endif
